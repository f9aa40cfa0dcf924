"""Models nested as layers in other models."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flaxapps.graph.graph import Graph, LayerInGraph
from flaxapps.graph.shapes import compatible
from flaxapps.graph.symbolic import Layer, Node, Shape


@dataclass(frozen=True)
class Functional(Layer):
    """A whole model as one layer. Its variables are a subtree under its name."""

    several_inputs = True

    graph: Graph

    def __call__(self, inputs: Node | Sequence[Node], *, training: bool | None = None) -> Any:
        """Calls the model symbolically. Returns a node, or a list of nodes if it has several outputs."""
        outputs = self.record(inputs, training).outputs
        return outputs[0] if len(outputs) == 1 else list(outputs)

    @property
    def layers(self) -> tuple[LayerInGraph, ...]:
        """The layers inside, in Keras's order."""
        return self.graph.layers

    def output_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        """Infers the shapes of all outputs, layer by layer."""
        expected = [node.shape for node in self.graph.inputs]
        if len(shapes) != len(expected) or not all(map(compatible, shapes, expected)):
            raise ValueError(f"The model takes inputs of shapes {expected}, got {list(shapes)}")
        return tuple(self.graph.follow(shapes, lambda step, inputs: step.layer.output_shapes(*inputs)))


@dataclass(frozen=True)
class Sequential(Functional):
    """Keras's Sequential. It differs from Functional only in the paths of its weights in files."""


@dataclass(frozen=True)
class ImageByImage(Functional):
    """A model that computes a batch image by image, so that activations stay in the cache."""


@dataclass(frozen=True)
class TimeDistributedModel(Functional):
    """A whole model applied to every step of a sequence; Keras's TimeDistributed."""

    @property
    def class_name(self) -> str:
        """The Keras class."""
        return "TimeDistributed"

    def output_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        """Infers the shapes for one step, and inserts the steps after the batch dimension."""
        batch, steps, *rest = shapes[0]
        return tuple((batch, steps, *found) for _, *found in super().output_shapes((batch, *rest)))
