"""Write one network in the configuration of every version of Keras, and build the same network by hand.

The configurations follow the files in tests/golden/legacy, which real versions wrote.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from flaxapps import Model, layers
from flaxapps.graph.graph import Graph
from flaxapps.graph.symbolic import Call, Layer, Node
from flaxapps.layers.activations import keras2_hard_sigmoid

Config = dict[str, Any]
Place = tuple[str, int]  # a layer and the number of its call


class LayerOf(NamedTuple):
    """A layer: its class and options in Keras 3, or a network for a nested model, or a number for x * number."""

    kind: str
    options: Mapping[str, Any] = {}
    inside: "Network | None" = None


@dataclass(frozen=True)
class Network:
    """Layers by name, the calls of them in order, and the call that is the output; the input is called `source`."""

    name: str
    shape: tuple[int, ...]
    layers: dict[str, LayerOf] = field(default_factory=dict)
    calls: list[tuple[str, tuple[Place, ...]]] = field(default_factory=list)
    output: Place = ("source", 0)
    source: str = "source"

    @property
    def is_chain(self) -> bool:
        """Whether a Sequential model can be it: every layer once, on the one before."""
        places = [(self.source, 0), *((name, 0) for name, _ in self.calls)]
        return (
            self.output == places[-1]
            and len(self.calls) == len(self.layers)
            and all(inputs == (place,) for (_, inputs), place in zip(self.calls, places, strict=False))
            and not any(each.kind == "times" for each in self.layers.values())
        )


@dataclass(frozen=True)
class Dialect:
    """What a version of Keras writes.

    Attributes:
        version: As in files.
        era: 1 for Keras 1, 2 for multi-backend Keras 2, 2.5 for tf.keras, 3 for Keras 3.
        archive: Whether it is that of a `.keras` archive: modules, registered names and build_config stand there.
        backend: As in files.
    """

    version: str
    era: float
    archive: bool = False
    backend: str = "tensorflow"

    @property
    def number(self) -> tuple[int, ...]:
        """The version to compare."""
        return tuple(int(part) for part in self.version.removesuffix("-tf").split("."))

    @property
    def sequential(self) -> str:
        """How the configuration of a Sequential model is written, a "list" or a "dict"."""
        return "list" if self.number < (2, 2, 3) and self.era < 2.5 else "dict"

    @property
    def function(self) -> str | None:
        """How `x * 2` is written."""
        if self.era < 2.5 or self.version == "2.2.4-tf":
            return "TensorFlowOpLayer" if self.era == 2.5 else None
        return "TFOpLambda" if self.era == 2.5 else "Multiply"


DIALECTS = {
    "Keras 1.2": Dialect("1.2.2", 1),
    "Keras 2.0": Dialect("2.0.8", 2),
    "Keras 2.2": Dialect("2.2.4", 2),
    "Keras 2.3": Dialect("2.3.1", 2),
    "tf.keras of 1.13 to 2.1": Dialect("2.2.4-tf", 2.5),
    "tf.keras of 2.4": Dialect("2.4.0", 2.5),
    "tf.keras of 2.8": Dialect("2.8.0", 2.5),
    "tf.keras of 2.13": Dialect("2.13.1", 2.5, archive=True),
    "tf.keras of 2.15": Dialect("2.15.0", 2.5, archive=True),
    "Keras 3.0": Dialect("3.0.5", 3, archive=True),
    "Keras 3.15": Dialect("3.15.0", 3, archive=True, backend="jax"),
}
SINCE_2 = ("DepthwiseConv2D", "ReLU")  # classes that Keras 1 does not have


def can_write(dialect: Dialect, network: Network) -> bool:
    """Whether the version has every layer of a network."""
    for layer in network.layers.values():
        if layer.inside is not None and not can_write(dialect, layer.inside):
            return False
        if layer.kind == "times" and dialect.function is None:
            return False
        if dialect.era == 1 and (
            layer.kind in SINCE_2
            or not layer.options.get("center", True)
            or not layer.options.get("scale", True)
            or layer.options.get("interpolation", "nearest") != "nearest"
        ):
            return False
    return True


def written(network: Network, dialect: Dialect, sequential: bool = False) -> Config:
    """The configuration that a version of Keras writes, with its version as `weight_port.read_config` adds it.

    Args:
        network: The network.
        dialect: The version.
        sequential: Whether it is a Sequential model, which has to be a chain of layers.
    """
    entry = _sequential(network, dialect) if sequential else _functional(network, dialect)
    found: Config = json.loads(json.dumps(entry))
    return found | {"keras_version": dialect.version, "backend": dialect.backend}


def _wrapped(dialect: Dialect, kind: str, config: Any, shape: Any = None) -> Config:
    """The entry of a layer, with what archives say beside it."""
    entry: Config = {"class_name": kind, "config": config}
    if dialect.archive:
        entry |= {"module": "keras.layers", "registered_name": None}
        if shape is not None:
            entry["build_config"] = {"input_shape": [None, *shape]}
    return entry


def _sequential(network: Network, dialect: Dialect) -> Config:
    entries = [_layer_entry(name, network.layers[name], dialect) for name, _ in network.calls]
    first = entries[0]["config"]
    shape = [None, *network.shape]
    if dialect.era == 3:
        first_entry = _input(network, dialect)
        entries.insert(0, first_entry)
    elif isinstance(first, dict) and "layers" not in first:
        first["batch_input_shape"] = shape
        if dialect.era == 1:
            first["input_dtype"] = "float32"
        if dialect.era == 2.5 and dialect.number >= (2, 4):
            entries.insert(0, _input(network, dialect))
    elif dialect.era == 2.5 and dialect.number >= (2, 4):  # before, the shape stood inside the first model only
        entries.insert(0, _input(network, dialect))
    for entry in entries:
        if entry["class_name"] not in ("Sequential", "Model", "Functional"):
            entry.pop("name", None)
    if dialect.sequential == "list":
        return {"class_name": "Sequential", "config": entries}
    return {"class_name": "Sequential", "config": {"name": network.name, "layers": entries}}


def _input(network: Network, dialect: Dialect) -> Config:
    shape = [None, *network.shape]
    config: Config = {"name": network.source, "sparse": False}
    if dialect.era == 1:
        config |= {"batch_input_shape": shape, "input_dtype": "float32"}
    else:
        config |= {"batch_shape" if dialect.era == 3 else "batch_input_shape": shape, "dtype": "float32"}
    if dialect.era == 2.5 and dialect.number >= (2, 3):
        config["ragged"] = False
    return _wrapped(dialect, "InputLayer", config)


def _functional(network: Network, dialect: Dialect) -> Config:
    entries = [_input(network, dialect) | {"name": network.source, "inbound_nodes": []}]
    for name, layer in network.layers.items():
        entry = _layer_entry(name, layer, dialect)
        calls = [inputs for called, inputs in network.calls if called == name]
        entry |= {"name": _entry_name(name, layer, dialect)}
        entry["inbound_nodes"] = [_record(network, layer, inputs, dialect) for inputs in calls]
        entries.append(entry)
    ends = {
        "input_layers": [[network.source, 0, 0]],
        "output_layers": [_reference(network, network.output, dialect, end=True)],
    }
    kind = "Model" if dialect.number < (2, 4) else "Functional"
    if dialect.era == 3 and dialect.number >= (3, 10):
        ends = {key: value[0] for key, value in ends.items()}  # one tensor is not in a list
    return _wrapped(dialect, kind, {"name": network.name, "layers": entries, **ends})


def _entry_name(name: str, layer: LayerOf, dialect: Dialect) -> str:
    return f"tf_op_layer_{name}" if layer.kind == "times" and dialect.function == "TensorFlowOpLayer" else name


def _reference(network: Network, place: Place, dialect: Dialect, end: bool = False) -> list[Any]:
    """[layer, call, output]; the construction of a nested model was its first call before Keras 3, and at ends is."""
    name, call = place
    layer = network.layers.get(name)
    counted = (
        layer is not None and layer.inside is not None and (dialect.era < 3 or (end and layer.kind != "Sequential"))
    )
    return [name if layer is None else _entry_name(name, layer, dialect), call + counted, 0]


def _record(network: Network, layer: LayerOf, inputs: tuple[Place, ...], dialect: Dialect) -> Any:
    references = [_reference(network, place, dialect) for place in inputs]
    if dialect.era == 3:
        tensors = [
            {"class_name": "__keras_tensor__", "config": {"shape": None, "dtype": "float32", "keras_history": each}}
            for each in references
        ]
        if layer.kind == "times":
            return {"args": [tensors[0], layer.options["factor"]], "kwargs": {}}
        kwargs: Config = {"mask": None} if layer.kind == "BatchNormalization" else {}
        kwargs |= {"training": False} if layer.kind == "Dropout" else {}
        return {"args": [tensors] if len(tensors) > 1 else tensors, "kwargs": kwargs}
    if layer.kind == "times" and dialect.function == "TFOpLambda":
        return [*references[0], {"y": layer.options["factor"], "name": None}]
    return references if dialect.era == 1 else [[*each, {}] for each in references]


def _layer_entry(name: str, layer: LayerOf, dialect: Dialect) -> Config:
    if layer.inside is not None:
        inside = dataclasses.replace(layer.inside, name=name)
        if layer.kind != "Sequential":
            return _functional(inside, dialect)
        return _wrapped(dialect, "Sequential", _sequential(inside, dialect)["config"])
    if layer.kind == "times":
        return _times(name, layer.options["factor"], dialect)
    config: Config = {"name": name, "trainable": True, **dict(layer.options)}
    if dialect.era > 1 and dialect.version not in ("2.0.8", "2.2.4"):
        config["dtype"] = "float32"
    if dialect.era == 3 and dialect.number >= (3, 10):
        config["dtype"] = {
            "module": "keras", "class_name": "DTypePolicy", "config": {"name": "float32"}, "registered_name": None
        }  # fmt: skip # as it is in the file
    spell = {1: _keras1, 2: _keras2, 2.5: _tf_keras, 3: _keras3}[dialect.era]
    kind, config = spell(layer.kind, config, dialect)
    return _wrapped(dialect, kind, config, (None,) if kind != "Activation" else None)


def _times(name: str, factor: float, dialect: Dialect) -> Config:
    if dialect.function == "TensorFlowOpLayer":
        node = {"name": name, "op": "Mul", "input": ["x", f"{name}/y"], "attr": {"T": {"type": "DT_FLOAT"}}}
        config = {"name": name, "trainable": True, "dtype": None, "node_def": node, "constants": {"1": factor}}
        return {"class_name": "TensorFlowOpLayer", "config": config}
    if dialect.function == "TFOpLambda":
        config = {"name": name, "trainable": True, "dtype": "float32", "function": "math.multiply"}
        return {"class_name": "TFOpLambda", "config": config}
    config = {} if dialect.number < (3, 11) else {"name": name}
    return {
        "module": "keras.src.ops.numpy", "class_name": "Multiply", "config": config, "registered_name": "Multiply"
    }  # fmt: skip # as it is in the file


INITIALIZER = {"class_name": "VarianceScaling", "config": {"scale": 1.0, "mode": "fan_avg", "distribution": "uniform"}}
CONVOLUTIONS = ("Conv2D", "Conv2DTranspose", "DepthwiseConv2D", "SeparableConv2D")
OF_IMAGES = (
    *CONVOLUTIONS, "MaxPooling2D", "AveragePooling2D", "GlobalAveragePooling2D", "UpSampling2D", "ZeroPadding2D",
)  # fmt: skip # kept on few lines on purpose


def _keras3(kind: str, config: Config, dialect: Dialect) -> tuple[str, Config]:
    config |= {"data_format": "channels_last"} if kind in (*OF_IMAGES, "Flatten") else {}
    config |= {"groups": 1} if kind == "Conv2D" else {}
    config |= {"seed": None, "noise_shape": None} if kind == "Dropout" else {}
    if kind in (*CONVOLUTIONS, "Dense"):
        config |= {"kernel_initializer": INITIALIZER, "kernel_regularizer": None, "bias_constraint": None}
    if kind == "BatchNormalization" and dialect.number >= (3, 10):
        config |= {"synchronized": False, "renorm": False, "renorm_clipping": None, "renorm_momentum": 0.99}
    if kind == "GlobalAveragePooling2D":
        config["keepdims"] = False
    return kind, config


def _keras2(kind: str, config: Config, dialect: Dialect) -> tuple[str, Config]:
    config |= {"data_format": "channels_last"} if kind in OF_IMAGES else {}
    if kind in (*CONVOLUTIONS, "Dense"):
        config |= {"kernel_initializer": INITIALIZER, "kernel_regularizer": None, "activity_regularizer": None}
    if kind == "BatchNormalization":
        config |= {"beta_initializer": {"class_name": "Zeros", "config": {}}, "gamma_constraint": None}
    if kind == "LeakyReLU":
        config["alpha"] = config.pop("negative_slope")
    if kind == "Dropout":
        config |= {"noise_shape": None, "seed": None}
    if kind == "UpSampling2D" and dialect.version == "2.0.8":
        config.pop("interpolation", None)
    return kind, config


def _tf_keras(kind: str, config: Config, dialect: Dialect) -> tuple[str, Config]:
    kind, config = _keras2(kind, config, dialect)
    if kind == "BatchNormalization":
        config["axis"] = [3]
        kind = "BatchNormalizationV1" if dialect.version == "2.2.4-tf" else kind
    if kind in CONVOLUTIONS and dialect.number >= (2, 4):
        config["groups"] = 1
    if kind == "Flatten":
        config["data_format"] = "channels_last"
    if kind == "GlobalAveragePooling2D" and dialect.number >= (2, 6):
        config["keepdims"] = False
    return kind, config


KERAS1 = {
    "filters": "nb_filter", "padding": "border_mode", "strides": "subsample", "use_bias": "bias", "units": "output_dim",
    "rate": "p", "negative_slope": "alpha",
}  # fmt: skip # kept on few lines on purpose
MERGES = {"Add": "sum", "Multiply": "mul", "Average": "ave", "Maximum": "max", "Concatenate": "concat"}
KINDS1 = {
    "Conv2D": "Convolution2D", "SeparableConv2D": "SeparableConvolution2D", "Conv2DTranspose": "Deconvolution2D",
}  # fmt: skip # kept on few lines on purpose


def _keras1(kind: str, config: Config, dialect: Dialect) -> tuple[str, Config]:
    if kind in MERGES:
        config |= {"mode": MERGES[kind], "mode_type": "raw", "concat_axis": config.pop("axis", -1), "dot_axes": -1}
        return "Merge", config | {"output_shape": None, "output_mask": None, "arguments": {}}
    if kind == "BatchNormalization":
        del config["center"], config["scale"]
        return kind, config | {"mode": 0, "gamma_regularizer": None, "beta_regularizer": None}
    renamed = dict(KERAS1)
    if "Pooling" in kind:
        del renamed["strides"]
    if kind == "ZeroPadding2D":
        renamed = {}
    config = {renamed.get(key, key): value for key, value in config.items()}
    if kind in CONVOLUTIONS:
        config["nb_row"], config["nb_col"] = config.pop("kernel_size")
        dilation = config.pop("dilation_rate", [1, 1])
        config |= {"init": "glorot_uniform", "W_regularizer": None, "b_constraint": None}
        if kind == "Conv2D" and dilation != [1, 1]:
            return "AtrousConvolution2D", config | {"atrous_rate": dilation, "dim_ordering": "tf"}
    if kind == "Dense":
        config |= {"init": "glorot_uniform", "W_regularizer": None, "input_dim": None}
    if kind in OF_IMAGES and kind not in ("ZeroPadding2D", "UpSampling2D"):
        config["dim_ordering"] = "tf"
    if kind == "UpSampling2D":
        config.pop("interpolation", None)
    return KINDS1.get(kind, kind), config


def built(network: Network, dialect: Dialect) -> Model:
    """The network as it should be read from a file of a version, put together by hand."""
    inputs, outputs = _ends(network, dialect)
    return Model(inputs, outputs, name=network.name)


def _ends(network: Network, dialect: Dialect) -> tuple[Node, Node]:
    source = Call(layers.InputLayer((None, *network.shape), dtype="float32", name=network.source), ()).outputs[0]
    made = {name: _made(name, layer, dialect) for name, layer in network.layers.items()}
    found: dict[Place, Node] = {(network.source, 0): source}
    for name, inputs in network.calls:
        number = sum(called == name for called, _ in found)
        nodes = tuple(found[place] for place in inputs)
        found[name, number] = Call(made[name], nodes).outputs[0]
    return source, found[network.output]


def _made(name: str, layer: LayerOf, dialect: Dialect) -> Layer:
    if layer.inside is not None:
        source, output = _ends(layer.inside, dialect)
        kind = layers.Sequential if layer.kind == "Sequential" else layers.Functional
        return kind(Graph([source], [output]), name=name)
    if layer.kind == "times":
        return layers.Operation(
            "Multiply", (layers.Slot(0), layer.options["factor"]), (), name=_entry_name(name, layer, dialect)
        )
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in layer.options.items()}
    if dialect.era < 3 and options.get("activation") == "hard_sigmoid":
        options["activation"] = keras2_hard_sigmoid
    if options.get("interpolation") == "bilinear" and dialect.era == 2:
        options["interpolation"] = "nearest" if dialect.version == "2.0.8" else "legacy_bilinear"
    kind: Callable[..., Layer] = getattr(layers, layer.kind)
    return kind(**options, dtype="float32", name=name)
