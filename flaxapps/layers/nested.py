"""Models as layers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flaxapps.graph import Graph, LayerInGraph
from flaxapps.layers.shapes import compatible
from flaxapps.recording import Layer, Node, Shape


@dataclass(frozen=True)
class Functional(Layer):
    """A whole model as one layer: its variables are a subtree under its name."""

    graph: Graph

    def __call__(self, inputs: Node | Sequence[Node], *, training: bool | None = None) -> Any:
        """Records a call of the model: a node, or a list of nodes where it has several outputs."""
        outputs = self.record(inputs, training).outputs
        return outputs[0] if len(outputs) == 1 else list(outputs)

    @property
    def layers(self) -> tuple[LayerInGraph, ...]:
        """The layers inside, in Keras's order."""
        return self.graph.layers

    def output_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        """Shapes of all outputs, inferred layer by layer."""
        expected = [node.shape for node in self.graph.inputs]
        if len(shapes) != len(expected) or not all(map(compatible, shapes, expected)):
            raise ValueError(f"The model takes inputs of shapes {expected}, got {list(shapes)}")
        values = list(shapes)
        for step in self.graph.steps:
            values += step.layer.output_shapes(*(values[index] for index in step.inputs))
        return tuple(values[index] for index in self.graph.results)


@dataclass(frozen=True)
class Sequential(Functional):
    """A model that Keras calls Sequential: Functional in all but the address of its weights in files."""
