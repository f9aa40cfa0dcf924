"""Tables of TensorFlow functions and graph nodes, with the equivalent operations of Keras 3.

Sources: the signatures in tensorflow/python/ops (2.15 and 1.15); keras/src/ops of Keras 3.15.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple


class Signature(NamedTuple):
    """The Keras 3 equivalent of a TensorFlow function.

    Attributes:
        operation: Keras's operation class.
        tensors: TensorFlow's names of the operation's positional arguments, in TensorFlow's order.
        options: Keras's option by TensorFlow's name. Other options are refused unless they have no effect.
        defaults: TensorFlow's defaults where Keras's differ.
    """

    operation: str
    tensors: tuple[str, ...]
    options: Mapping[str, str] = MappingProxyType({})
    defaults: Mapping[str, Any] = MappingProxyType({})


_X = ("x",)
_XY = ("x", "y")
_POOLING = MappingProxyType({"ksize": "pool_size", "strides": "strides", "padding": "padding"})
_ALONG = MappingProxyType({"axis": "axis"})
_REDUCTION = ("input_tensor",), MappingProxyType({"axis": "axis", "keepdims": "keepdims", "keep_dims": "keepdims"})
# By name in the module tf; argument names are those of TensorFlow 2.
SIGNATURES: Mapping[str, Signature] = MappingProxyType(
    {
        "__operators__.add": Signature("Add", _XY),
        "__operators__.getitem": Signature("GetItem", ("tensor", "slice_spec")),
        "__operators__.matmul": Signature("Matmul", ("a", "b")),
        "abs": Signature("Absolute", _X),
        "argmax": Signature("Argmax", ("input",), _ALONG, {"axis": 0}),
        "argmin": Signature("Argmin", ("input",), _ALONG, {"axis": 0}),
        "broadcast_to": Signature("BroadcastTo", ("input",), {"shape": "shape"}),
        "cast": Signature("Cast", _X, {"dtype": "dtype"}),
        "clip_by_value": Signature("Clip", ("t",), {"clip_value_min": "x_min", "clip_value_max": "x_max"}),
        "concat": Signature("Concatenate", ("values",), {"axis": "axis"}),
        "cumsum": Signature("Cumsum", _X, _ALONG, {"axis": 0}),
        "dtypes.saturate_cast": Signature("SaturateCast", ("value",), {"dtype": "dtype"}),
        "einsum": Signature("Einsum", ("equation", "x", "y")),
        "expand_dims": Signature("ExpandDims", ("input",), {"axis": "axis"}),
        "floor_div": Signature("FloorDivide", _XY),
        "gather": Signature("Take", ("params", "indices"), _ALONG, {"axis": 0}),
        "identity": Signature("Copy", ("input",)),
        "image.resize": Signature(
            "Resize", ("images",), {"size": "size", "method": "interpolation", "antialias": "antialias"}
        ),
        "image.crop_to_bounding_box": Signature(
            "CropBox",
            ("image",),
            {key: key for key in ("offset_height", "offset_width", "target_height", "target_width")},
        ),
        "image.flip_left_right": Signature("FlipLeftRight", ("image",)),
        "image.flip_up_down": Signature("FlipUpDown", ("image",)),
        "image.rgb_to_grayscale": Signature("RGBToGrayscale", ("images",)),
        "linalg.l2_normalize": Signature("Normalize", _X, {"axis": "axis", "epsilon": "epsilon"}),
        "linalg.matmul": Signature("Matmul", ("a", "b")),
        "math.abs": Signature("Absolute", _X),
        "math.acos": Signature("Arccos", _X),
        "math.add": Signature("Add", _XY),
        "math.add_n": Signature("AddN", ("inputs",)),
        "math.argmax": Signature("Argmax", ("input",), _ALONG, {"axis": 0}),
        "math.argmin": Signature("Argmin", ("input",), _ALONG, {"axis": 0}),
        "math.asin": Signature("Arcsin", _X),
        "math.atan": Signature("Arctan", _X),
        "math.ceil": Signature("Ceil", _X),
        "math.cos": Signature("Cos", _X),
        "math.cosh": Signature("Cosh", _X),
        "math.cumprod": Signature("Cumprod", _X, _ALONG, {"axis": 0}),
        "math.cumsum": Signature("Cumsum", _X, _ALONG, {"axis": 0}),
        "math.divide": Signature("Divide", _XY),
        "math.divide_no_nan": Signature("DivideNoNan", _XY),
        "math.equal": Signature("Equal", _XY),
        "math.erf": Signature("Erf", _X),
        "math.exp": Signature("Exp", _X),
        "math.expm1": Signature("Expm1", _X),
        "math.floor": Signature("Floor", _X),
        "math.floordiv": Signature("FloorDivide", _XY),
        "math.floormod": Signature("Mod", _XY),
        "math.greater": Signature("Greater", _XY),
        "math.greater_equal": Signature("GreaterEqual", _XY),
        "math.is_finite": Signature("Isfinite", _X),
        "math.is_nan": Signature("Isnan", _X),
        "math.l2_normalize": Signature("Normalize", _X, {"axis": "axis", "epsilon": "epsilon"}),
        "math.less": Signature("Less", _XY),
        "math.less_equal": Signature("LessEqual", _XY),
        "math.log": Signature("Log", _X),
        "math.log1p": Signature("Log1p", _X),
        "math.logical_and": Signature("LogicalAnd", _XY),
        "math.logical_not": Signature("LogicalNot", _X),
        "math.logical_or": Signature("LogicalOr", _XY),
        "math.logical_xor": Signature("LogicalXor", _XY),
        "math.maximum": Signature("Maximum", _XY),
        "math.minimum": Signature("Minimum", _XY),
        "math.mod": Signature("Mod", _XY),
        "math.multiply": Signature("Multiply", _XY),
        "math.negative": Signature("Negative", _X),
        "math.not_equal": Signature("NotEqual", _XY),
        "math.pow": Signature("Power", _XY),
        "math.reciprocal": Signature("Reciprocal", _X),
        "math.reduce_all": Signature("All", *_REDUCTION),
        "math.reduce_any": Signature("Any", *_REDUCTION),
        "math.reduce_euclidean_norm": Signature("Norm", *_REDUCTION),
        "math.reduce_logsumexp": Signature("Logsumexp", *_REDUCTION),
        "math.reduce_max": Signature("Max", *_REDUCTION),
        "math.reduce_mean": Signature("Mean", *_REDUCTION),
        "math.reduce_min": Signature("Min", *_REDUCTION),
        "math.reduce_prod": Signature("Prod", *_REDUCTION),
        "math.reduce_std": Signature("Std", *_REDUCTION),
        "math.reduce_sum": Signature("Sum", *_REDUCTION),
        "math.reduce_variance": Signature("Var", *_REDUCTION),
        "math.rint": Signature("Round", _X),
        "math.round": Signature("Round", _X),
        "math.rsqrt": Signature("Rsqrt", _X),
        "math.scalar_mul": Signature("Multiply", ("scalar", "x")),
        "math.sigmoid": Signature("Sigmoid", _X),
        "math.sign": Signature("Sign", _X),
        "math.sin": Signature("Sin", _X),
        "math.sinh": Signature("Sinh", _X),
        "math.softplus": Signature("Softplus", ("features",)),
        "math.sqrt": Signature("Sqrt", _X),
        "math.square": Signature("Square", _X),
        "math.squared_difference": Signature("SquaredDifference", _XY),
        "math.subtract": Signature("Subtract", _XY),
        "math.tan": Signature("Tan", _X),
        "math.tanh": Signature("Tanh", _X),
        "math.truediv": Signature("TrueDivide", _XY),
        "nn.avg_pool": Signature("AveragePool", ("input",), _POOLING),
        "nn.avg_pool2d": Signature("AveragePool", ("input",), _POOLING),
        "nn.bias_add": Signature("Add", ("value", "bias")),
        "nn.crelu": Signature("Crelu", ("features",), _ALONG, {"axis": -1}),
        "nn.depth_to_space": Signature("DepthToSpace", ("input",), {"block_size": "block_size"}),
        "nn.elu": Signature("Elu", ("features",)),
        "nn.gelu": Signature("Gelu", ("features",), {"approximate": "approximate"}, {"approximate": False}),
        "nn.l2_normalize": Signature("Normalize", _X, {"axis": "axis", "epsilon": "epsilon"}),
        "nn.leaky_relu": Signature("LeakyRelu", ("features",), {"alpha": "negative_slope"}),
        "nn.log_softmax": Signature("LogSoftmax", ("logits",), {"axis": "axis"}, {"axis": -1}),
        "nn.max_pool": Signature("MaxPool", ("input",), _POOLING),
        "nn.max_pool2d": Signature("MaxPool", ("input",), _POOLING),
        "nn.relu": Signature("Relu", ("features",)),
        "nn.relu6": Signature("Relu6", ("features",)),
        "nn.selu": Signature("Selu", ("features",)),
        "nn.sigmoid": Signature("Sigmoid", _X),
        "nn.silu": Signature("Silu", ("features",)),
        "nn.softmax": Signature("Softmax", ("logits",), {"axis": "axis"}, {"axis": -1}),
        "nn.softplus": Signature("Softplus", ("features",)),
        "nn.softsign": Signature("Softsign", ("features",)),
        "nn.space_to_depth": Signature("SpaceToDepth", ("input",), {"block_size": "block_size"}),
        "nn.swish": Signature("Silu", ("features",)),
        "nn.tanh": Signature("Tanh", _X),
        "one_hot": Signature("OneHot", ("indices",), {"depth": "num_classes", "axis": "axis", "dtype": "dtype"}),
        "ones_like": Signature("OnesLike", ("input",)),
        "pad": Signature(
            "Pad", ("tensor",), {"paddings": "pad_width", "mode": "mode", "constant_values": "constant_values"}
        ),
        "repeat": Signature("Repeat", ("input",), {"repeats": "repeats", "axis": "axis"}),
        "reshape": Signature("Reshape", ("tensor",), {"shape": "newshape"}),
        "reverse": Signature("Flip", ("tensor",), {"axis": "axis"}),
        "roll": Signature("Roll", ("input",), {"shift": "shift", "axis": "axis"}),
        "round": Signature("Round", _X),
        "shape": Signature("Shape", ("input",)),
        "split": Signature("Split", ("value",), {"num_or_size_splits": "sections", "axis": "axis"}, {"axis": 0}),
        "squeeze": Signature("Squeeze", ("input",), {"axis": "axis"}),
        "stack": Signature("Stack", ("values",), {"axis": "axis"}),
        "stop_gradient": Signature("StopGradient", ("input",)),
        "tensordot": Signature("Tensordot", ("a", "b"), {"axes": "axes"}),
        "tile": Signature("Tile", ("input",), {"multiples": "repeats"}),
        "transpose": Signature("Transpose", ("a",), {"perm": "axes"}),
        "unstack": Signature("Unstack", ("value",), {"num": "num", "axis": "axis"}, {"axis": 0}),
        "where": Signature("Where", ("condition", "x", "y")),
        "zeros_like": Signature("ZerosLike", ("input",)),
    }
)
# Options without effect at these values.
WITHOUT_EFFECT: Mapping[str, tuple[Any, ...]] = MappingProxyType(
    {
        "data_format": (None, "NHWC", "channels_last"), "beta": (1.0,), "conjugate": (False,),
        "preserve_aspect_ratio": (False,), "reduction_indices": (None,), "dim": (None,),
        "transpose_a": (False,), "transpose_b": (False,), "adjoint_a": (False,), "adjoint_b": (False,),
        "a_is_sparse": (False,), "b_is_sparse": (False,), "output_type": (None, "int32", "int64"),
        "squeeze_dims": (None,), "validate_indices": (None,), "batch_dims": (0,), "exclusive": (False,),
        "reverse": (False,), "on_value": (None, 1), "off_value": (None, 0), "out_type": (None, "int32"),
        "align_corners": (None, False), "optimize": (None,),
    }
)  # fmt: skip # kept on few lines on purpose
# Functions by graph node. Constants of nodes are inputs.
NODES: Mapping[str, str] = MappingProxyType(
    {
        "Abs": "math.abs", "Acos": "math.acos", "Add": "math.add", "AddN": "math.add_n", "AddV2": "math.add",
        "All": "math.reduce_all", "Any": "math.reduce_any", "ArgMax": "argmax", "ArgMin": "argmin", "Asin": "math.asin",
        "Atan": "math.atan", "AvgPool": "nn.avg_pool", "BatchMatMul": "linalg.matmul", "BatchMatMulV2": "linalg.matmul",
        "BiasAdd": "nn.bias_add", "Cast": "cast", "Ceil": "math.ceil", "ConcatV2": "concat", "Cos": "math.cos",
        "Cosh": "math.cosh", "Cumprod": "math.cumprod", "Cumsum": "cumsum", "DepthToSpace": "nn.depth_to_space",
        "Div": "math.divide", "DivNoNan": "math.divide_no_nan", "Einsum": "einsum", "Elu": "nn.elu",
        "Equal": "math.equal", "Erf": "math.erf", "EuclideanNorm": "math.reduce_euclidean_norm", "Exp": "math.exp",
        "ExpandDims": "expand_dims", "Expm1": "math.expm1", "Floor": "math.floor", "FloorDiv": "math.floordiv",
        "FloorMod": "math.floormod", "GatherV2": "gather", "Greater": "math.greater",
        "GreaterEqual": "math.greater_equal", "Identity": "identity", "IsFinite": "math.is_finite",
        "IsNan": "math.is_nan", "LeakyRelu": "nn.leaky_relu", "Less": "math.less", "LessEqual": "math.less_equal",
        "Log": "math.log", "Log1p": "math.log1p", "LogSoftmax": "nn.log_softmax", "LogicalAnd": "math.logical_and",
        "LogicalNot": "math.logical_not", "LogicalOr": "math.logical_or", "MatMul": "linalg.matmul",
        "Max": "math.reduce_max", "MaxPool": "nn.max_pool", "Maximum": "math.maximum", "Mean": "math.reduce_mean",
        "Min": "math.reduce_min", "Minimum": "math.minimum", "MirrorPad": "pad", "Mul": "math.multiply",
        "Neg": "math.negative", "NotEqual": "math.not_equal", "OnesLike": "ones_like", "Pack": "stack", "Pad": "pad",
        "PadV2": "pad", "Pow": "math.pow", "Prod": "math.reduce_prod", "RealDiv": "math.truediv",
        "OneHot": "one_hot",
        "Reciprocal": "math.reciprocal", "Relu": "nn.relu", "Relu6": "nn.relu6", "Reshape": "reshape",
        "ResizeArea": "image.resize", "ResizeBicubic": "image.resize", "ResizeBilinear": "image.resize",
        "ResizeNearestNeighbor": "image.resize", "ReverseV2": "reverse", "Roll": "roll", "Round": "math.round",
        "Rsqrt": "math.rsqrt", "Select": "where",
        "SelectV2": "where", "Selu": "nn.selu", "Shape": "shape", "Sigmoid": "nn.sigmoid",
        "Sign": "math.sign", "Sin": "math.sin", "Sinh": "math.sinh", "Softmax": "nn.softmax",
        "Softplus": "nn.softplus", "Softsign": "nn.softsign", "SpaceToDepth": "nn.space_to_depth", "Split": "split",
        "SplitV": "split", "Sqrt": "math.sqrt", "Square": "math.square",
        "SquaredDifference": "math.squared_difference", "Squeeze": "squeeze", "StopGradient": "stop_gradient",
        "Sub": "math.subtract", "Sum": "math.reduce_sum", "Tan": "math.tan", "Tanh": "nn.tanh", "Tile": "tile",
        "Transpose": "transpose", "Unpack": "unstack", "ZerosLike": "zeros_like",
    }
)  # fmt: skip # kept on few lines on purpose
# Options that nodes take as their last inputs.
NODE_INPUTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        **dict.fromkeys(
            (
                "ArgMax", "ArgMin", "All", "Any", "Cumprod", "Cumsum", "EuclideanNorm", "ExpandDims", "GatherV2", "Max",
                "Mean", "Min", "Prod", "ReverseV2", "Sum",
            ),
            ("axis",),
        ),
        "MirrorPad": ("paddings",), "Pad": ("paddings",), "PadV2": ("paddings", "constant_values"),
        "OneHot": ("depth", "on_value", "off_value"), "Reshape": ("shape",),
        "ResizeArea": ("size",), "ResizeBicubic": ("size",), "ResizeBilinear": ("size",),
        "ResizeNearestNeighbor": ("size",), "Roll": ("shift", "axis"), "SplitV": ("num_or_size_splits", "axis"),
        "Tile": ("multiples",), "Transpose": ("perm",),
    }
)  # fmt: skip # kept on few lines on purpose
# Options that nodes have as attributes. Others have no effect or are dtypes.
NODE_ATTRIBUTES: Mapping[str, str] = MappingProxyType(
    {
        "DstT": "dtype", "adj_x": "adjoint_a", "adj_y": "adjoint_b", "align_corners": "align_corners", "alpha": "alpha",
        "axis": "axis", "batch_dims": "batch_dims", "block_size": "block_size", "data_format": "data_format",
        "equation": "equation", "exclusive": "exclusive", "half_pixel_centers": "half_pixel_centers",
        "keep_dims": "keepdims", "ksize": "ksize", "mode": "mode", "num_split": "num_or_size_splits",
        "padding": "padding", "reverse": "reverse", "squeeze_dims": "axis", "strides": "strides",
        "transpose_a": "transpose_a", "transpose_b": "transpose_b",
    }
)  # fmt: skip # kept on few lines on purpose
# TensorFlow's dtypes in the attributes of nodes.
DTYPES: Mapping[str, str] = MappingProxyType(
    {"DT_FLOAT": "float32", "DT_DOUBLE": "float64", "DT_HALF": "float16", "DT_BFLOAT16": "bfloat16", "DT_BOOL": "bool"}
    | {f"DT_{name.upper()}": name for name in ("int8", "int16", "int32", "int64", "uint8", "uint16")}
)
# Resizing methods by node: with half_pixel_centers, and without.
RESIZING: Mapping[str, tuple[str, str | None]] = MappingProxyType(
    {
        "ResizeArea": ("area", "area"),
        "ResizeBicubic": ("bicubic", None),
        "ResizeBilinear": ("bilinear", "legacy_bilinear"),
        "ResizeNearestNeighbor": ("nearest", "legacy_nearest"),
    }
)
