"""Convert TensorFlow functions that tf.keras recorded as layers to operations of Keras 3; no code is executed.

tf.keras of TensorFlow 2.4 to 2.15 writes TFOpLambda and SlicingOpLambda with the function's name and arguments. That of
1.14 to 2.3 writes TensorFlowOpLayer with a node of TensorFlow's graph.
Sources: tensorflow/python/keras/layers/core.py (2.4), tensorflow/python/keras/engine/base_layer.py (2.1).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flaxapps.saving.dialects.structure import CONSTANT
from flaxapps.saving.dialects.tensorflow_names import SIGNATURES, WITHOUT_EFFECT, Signature
from flaxapps.saving.dialects.tensorflow_nodes import LEGACY_TENSOR, Call, node_function, tensor

Entry = Mapping[str, Any]
RECORDED = ("TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer")
OF_INTEGERS = ("Take",)  # operations whose constants are indices
POOLING = {"AveragePool": "AveragePooling2D", "MaxPool": "MaxPooling2D"}
TURNED = ("adjoint", "transpose")  # equivalent for real numbers
V1_RESIZING = {
    "compat.v1.image.resize": "",
    "compat.v1.image.resize_bilinear": "bilinear",
    "compat.v1.image.resize_images": "",
    "compat.v1.image.resize_nearest_neighbor": "nearest_neighbor",
}


def as_operations(entry: Entry) -> list[Entry]:
    """Convert a recorded TensorFlow function to the entries of Keras 3 operations.

    Args:
        entry: A layer of any class; all but the three in RECORDED are returned unchanged.

    Returns:
        Entries; the last has the name of the function. Most functions are one operation.

    Raises:
        ValueError: The function or one of its options has no known equivalent.
    """
    if entry["class_name"] not in RECORDED:
        return [entry]
    # A TensorFlowOpLayer has two names; the one in the configuration is that of the graph node.
    config, name = entry["config"], entry.get("name") or entry["config"].get("name")
    if entry["class_name"] == "TensorFlowOpLayer":
        function, read = node_function(config, name)
    else:
        function, read = str(config.get("function")), _lambda_arguments
    signature = SIGNATURES.get("image.resize" if function in V1_RESIZING else function.removeprefix("compat.v1."))
    if signature is None:
        raise ValueError(f"{name} (the TensorFlow function tf.{function}, which is not among those that are imported)")
    made = _Operations(str(name))
    for record in entry["inbound_nodes"]:
        made.call(function, *_arguments(str(name), function, signature, *read(record)))
    return [*made.before, {**entry, **made.last()}]


def _arguments(
    name: str, function: str, signature: Signature, positional: Sequence[Any], named: Mapping[str, Any]
) -> tuple[str, list[Any], dict[str, Any]]:
    """The operation, its arguments and its options in Keras's terms."""
    names = (*signature.tensors, *signature.options)
    given = dict(zip(names, positional, strict=False)) | dict(named)
    given.pop("name", None)
    if function in V1_RESIZING:
        given["method"] = _v1_method(name, function, given)
    args = [given.pop(tensor) for tensor in signature.tensors if tensor in given]
    options = dict(signature.defaults) | {
        keras: given.pop(tensorflow) for tensorflow, keras in signature.options.items() if tensorflow in given
    }
    turned = {side: [given.pop(f"{how}_{side}", False) for how in TURNED] for side in "ab"}
    transposed = {f"transpose_{side}": True for side, said in turned.items() if any(said)}
    unknown = {
        option: value
        for option, value in given.items()
        if value is not None and value not in WITHOUT_EFFECT.get(option, ())
    }
    if unknown or len(args) < len(signature.tensors):
        raise ValueError(f"{name} (tf.{function} with {unknown or 'too few arguments'}, which is not imported)")
    if signature.operation == "GetItem":
        args[1] = _key(args[1])
    else:
        dtype = "int32" if signature.operation in OF_INTEGERS else "float32"
        args = [_array(argument, dtype) if _is_numbers(argument) else argument for argument in args]
    if signature.operation == "Normalize":  # TensorFlow bounds the square of the norm, Keras the norm
        options["epsilon"] = float(options.get("epsilon") or 1e-12) ** 0.5
    if isinstance(options.get("mode"), str):
        options["mode"] = options["mode"].lower()
    if not options.get("constant_values"):
        options.pop("constant_values", None)
    if signature.operation == "Reshape" and _has_tensors(options.get("newshape")):
        args.append(options.pop("newshape"))
    if signature.operation == "Resize" and _has_tensors(options.get("size")):
        args.append(options.pop("size"))
    if _has_tensors(list(options.values())):
        raise ValueError(f"{name} (tf.{function} with a tensor as an option, which is not imported)")
    known = {key: value for key, value in (options | transposed).items() if value is not None}
    return signature.operation, args, known


def _v1_method(name: str, function: str, given: dict[str, Any]) -> str:
    """The resizing method of a TensorFlow 1 function: without half_pixel_centers by default."""
    method = V1_RESIZING[function] or {0: "bilinear", 1: "nearest_neighbor", 3: "area"}.get(given.get("method", 0), "")
    method = {"nearest_neighbor": "nearest"}.get(method, method)
    centred = bool(given.pop("half_pixel_centers", False))
    if method not in ("bilinear", "nearest", "area") or given.get("align_corners"):
        raise ValueError(f"{name} (tf.{function} with {given.get('method')!r} or align_corners, which is not imported)")
    return method if centred or method == "area" else f"legacy_{method}"


class _Operations:
    """Collects the operations that replace a recorded function.

    Attributes:
        before: Entries of the operations before the last.
    """

    def __init__(self, name: str):
        self.before: list[dict[str, Any]] = []
        self._name = name
        self._last: dict[str, Any] = {}
        self._records: list[dict[str, Any]] = []

    def last(self) -> dict[str, Any]:
        """The entry that has the name of the function."""
        return {**self._last, "name": self._name, "inbound_nodes": self._records}

    def call(self, function: str, kind: str, args: list[Any], options: dict[str, Any]) -> None:
        """Add a call of the function."""
        if kind in COMPOSED:
            kind, args, options = COMPOSED[kind](self._step, args, options)
        if kind == "Matmul":
            for place, option in enumerate(("transpose_a", "transpose_b")):
                if options.pop(option, False):
                    args[place] = self._step("Swapaxes", [args[place]], {"axis1": -1, "axis2": -2})
        if kind == "Resize":
            self._resizing(function, args, options)
            return
        if kind in POOLING:
            self._layer(function, POOLING[kind], args, _pooling(self._name, options))
            return
        self._last = {"class_name": kind, "module": "keras.src.ops", "config": {"name": self._name}}
        self._records.append({"args": args, "kwargs": options})

    def _step(self, kind: str, args: list[Any], options: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Add an operation before the last one and return its output tensor."""
        name = f"{self._name}_{len(self.before)}"
        record = {"args": args, "kwargs": dict(options or {})}
        entry = {"class_name": kind, "module": "keras.src.ops", "config": {"name": name}, "inbound_nodes": [record]}
        self.before.append({"name": name, **entry})
        return tensor((name, 0, 0))

    def _resizing(self, function: str, args: list[Any], options: Mapping[str, Any]) -> None:
        """Add tf.image.resize as a Resizing layer, which supports TensorFlow's methods."""
        method = str(options.get("interpolation", "bilinear"))
        antialias = bool(options.get("antialias", False))
        method = "tensorflow_bicubic" if method == "bicubic" and not antialias else method
        # If the sizes are tensors, the graph builder sets them later; see `sizes`.
        config = {"interpolation": method, "antialias": antialias, "height": 1, "width": 1}
        if "size" in options:
            config |= {"height": int(options["size"][0]), "width": int(options["size"][1])}
        self._layer(function, "Resizing", args, config)

    def _layer(self, function: str, kind: str, args: list[Any], options: Mapping[str, Any]) -> None:
        """Add the function as a layer of Keras 3."""
        entry = {"class_name": kind, "module": "keras.layers", "config": {"name": self._name, **options}}
        if self._last not in ({}, entry):
            raise ValueError(f"{self._name} (tf.{function} with several options, which is not imported)")
        self._last = entry
        self._records.append({"args": args, "kwargs": {}})


Step = Callable[..., dict[str, Any]]
Composed = tuple[str, list[Any], dict[str, Any]]


def _squared_difference(step: Step, args: list[Any], options: dict[str, Any]) -> Composed:
    return "Square", [step("Subtract", args)], options


def _crelu(step: Step, args: list[Any], options: dict[str, Any]) -> Composed:
    return "Concatenate", [[step("Relu", args), step("Relu", [step("Negative", args)])]], options


def _add_n(step: Step, args: list[Any], options: dict[str, Any]) -> Composed:
    first, *rest = args[0]
    for other in rest[:-1]:
        first = step("Add", [first, other])
    return ("Add", [first, rest[-1]], options) if rest else ("Copy", [first], options)


def _norm(step: Step, args: list[Any], options: dict[str, Any]) -> Composed:
    return "Sqrt", [step("Sum", [step("Square", args)], options)], {}


def _einsum(step: Step, args: list[Any], options: dict[str, Any]) -> Composed:
    return "Einsum", args[1:], {"subscripts": args[0]}


def _flip(axis: int) -> Callable[[Step, list[Any], dict[str, Any]], Composed]:
    return lambda step, args, options: ("Flip", args, {"axis": axis})


def _crop_box(step: Step, args: list[Any], options: dict[str, Any]) -> Composed:
    top, left = int(options["offset_height"]), int(options["offset_width"])
    rows = {"start": top, "stop": top + int(options["target_height"]), "step": None}
    columns = {"start": left, "stop": left + int(options["target_width"]), "step": None}
    return "GetItem", [*args, _key([{"class_name": "__ellipsis__"}, rows, columns, dict.fromkeys(rows)])], {}


# Functions that need several operations in Keras 3, or other arguments.
COMPOSED: Mapping[str, Callable[[Step, list[Any], dict[str, Any]], Composed]] = {
    "AddN": _add_n,
    "Crelu": _crelu,
    "CropBox": _crop_box,
    "Einsum": _einsum,
    "FlipLeftRight": _flip(-2),
    "FlipUpDown": _flip(-3),
    "Norm": _norm,
    "SquaredDifference": _squared_difference,
}


def _pooling(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Window and strides of height and width.

    Raises:
        ValueError: The pooling is also over the batch or the channels.
    """
    sizes = {}
    for option in ("pool_size", "strides"):
        value = options[option]
        if isinstance(value, list) and len(value) == 4:
            if value[0] != 1 or value[3] != 1:
                raise ValueError(f"{name} (pooling over {option}={value}, which is not imported)")
            value = value[1:3]
        sizes[option] = value
    return {**sizes, "padding": str(options["padding"]).lower()}


def _has_tensors(value: Any) -> bool:
    if isinstance(value, Mapping):
        return value.get("class_name") == LEGACY_TENSOR
    return isinstance(value, list) and any(map(_has_tensors, value))


def _is_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(_is_numbers(part) or isinstance(part, int | float) for part in value)


def _array(values: Any, dtype: str) -> dict[str, Any]:
    return {"class_name": "__numpy__", "config": {"value": values, "dtype": dtype}}


def _lambda_arguments(record: Any) -> Call:
    """The arguments of a TFOpLambda or SlicingOpLambda: the first by position, the others by name."""
    if isinstance(record[0], str):
        return [_first(record)], _options(record[3] if len(record) > 3 else {})
    options = record[0][3] if len(record[0]) > 3 else {}
    return [[_first(each) for each in record]], _options(options)


def _first(record: Sequence[Any]) -> Any:
    return record[2] if record[0] == CONSTANT else tensor(record)


def _options(value: Any) -> Any:
    """Keyword arguments, with tensors, written as [layer, call, output], converted to objects."""
    if isinstance(value, Mapping):
        return {key: _options(part) for key, part in value.items()}
    if isinstance(value, list):
        is_tensor = len(value) == 3 and isinstance(value[0], str) and all(isinstance(part, int) for part in value[1:])
        if is_tensor:
            return value[2] if value[0] == CONSTANT else tensor(value)
        return [_options(part) for part in value]
    return value


def _key(spec: Any) -> list[Any]:
    """The key of `x[key]`, in the form of Keras 3."""
    parts = spec if isinstance(spec, list) else [spec]
    return [
        {"class_name": "__slice__", "config": part} if isinstance(part, Mapping) and "start" in part else part
        for part in parts
    ]
