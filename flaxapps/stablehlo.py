"""Networks as StableHLO files, which JAX runs on any platform without flaxapps."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np
from flax import traverse_util

from flaxapps.compilation import batch_inputs
from flaxapps.inference import Function, forward, preprocessing_function
from flaxapps.model import Model
from flaxapps.ops import at_least_float32
from flaxapps.recording import Node
from weight_port import WeightError
from weight_port.checkpoints import SEPARATOR, load_npz, save_npz
from weight_port.writers import replacing

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
WEIGHTS = ("inside", "beside")
_flatten: Any = traverse_util.flatten_dict  # Flax leaves these two untyped
_unflatten: Any = traverse_util.unflatten_dict


def export(
    model: Model,
    variables: Mapping[str, Any],
    path: str | os.PathLike[str],
    *,
    input_shape: Sequence[int] | Sequence[Sequence[int]] | None = None,
    dtype: str = "float32",
    preprocess: bool | str | Function = False,
    platforms: Sequence[str] = ("cpu", "cuda", "tpu"),
    weights: str = "inside",
) -> None:
    """Writes a network in inference mode as one StableHLO file, for batches of any size on several platforms.

    JAX alone runs it, for as long as `jax.export` promises (six months of newer versions at least):

        import pathlib, jax, jax.export
        network = jax.export.deserialize(bytearray(pathlib.Path("resnet50.stablehlo").read_bytes()))
        scores = jax.jit(network.call)(photos)

    With weights="beside" they are the first argument: `network.call(dict(numpy.load("resnet50.npz")), photos)`.

    Args:
        model: The network.
        variables: Its arrays.
        path: The file to write; one that is there is replaced.
        input_shape: Shape of one image in the model's layout; a list of shapes for a model of several inputs. None
            takes the model's own.
        dtype: Of the images: "float32", "uint8" or any other of numbers.
        preprocess: What is done to the images before the network, as for `predict`; part of what is written.
        platforms: Where it shall run: any of "cpu", "cuda", "rocm" and "tpu". Each is lowered in its own way.
        weights: "inside" the file, as constants; or "beside" it, in an `.npz` file of the same name whose keys are
            paths such as "params/conv1/kernel", so that they can be replaced.

    Raises:
        ImportError: The flatbuffers package is missing.
        ValueError: The shape, dtype, preprocessing, platforms or weights are not as said above.
        OSError: A file cannot be written.
    """
    _require_flatbuffers()
    unknown = sorted({*platforms} - {*PLATFORMS})
    if unknown or not platforms:
        raise ValueError(f"platforms should be some of {', '.join(PLATFORMS)}, got {', '.join(unknown) or 'none'}")
    if weights not in WEIGHTS:
        raise ValueError(f"weights should be 'inside' or 'beside', got {weights!r}")
    if weights == "beside" and weights_path(path) == Path(path):
        raise ValueError(f"{path}: the weights would take the name of the file; call it .stablehlo")
    function = preprocessing_function(model, preprocess)
    (batch,) = jax.export.symbolic_shape("batch")
    shapes = batch_inputs(model, batch, input_shape, dtype)
    inputs: Any = shapes[0] if isinstance(model.input, Node) else list(shapes)
    flat: dict[str, Any] = _flatten(dict(variables), sep=SEPARATOR)

    def compute(flat: Mapping[str, Any], x: Any) -> Any:
        outputs = forward(model, function, _unflatten(flat, sep=SEPARATOR), [x] if isinstance(model.input, Node) else x)
        return outputs[0] if isinstance(model.output, Node) else outputs

    if weights == "inside":
        lowered = jax.export.export(jax.jit(lambda x: compute(flat, x)), platforms=platforms)(inputs)
    else:
        lowered = jax.export.export(jax.jit(compute), platforms=platforms)(jax.eval_shape(lambda: flat), inputs)
        save_npz(weights_path(path), jax.tree.map(at_least_float32, dict(variables)))  # NumPy knows no bfloat16
    with replacing(path) as part:
        Path(part).write_bytes(lowered.serialize())


@dataclass(frozen=True, eq=False)
class ExportedNetwork:
    """A network read from a StableHLO file. `network(x)` computes, on the platforms it was written for.

    Attributes:
        lowered: What `jax.export` knows about it: `platforms`, `in_avals`, `out_avals`, `mlir_module()`.
        function: Its call, compiled once for each size of batch.
        weights: Arrays from beside the file, on the device; empty where they are inside.
    """

    lowered: jax.export.Exported
    function: Callable[..., Any]
    weights: tuple[Mapping[str, jax.Array], ...]

    def __call__(self, x: Any) -> Any:
        """Computes the outputs for a batch of any size, each size being compiled once.

        Args:
            x: Images of the shape and dtype of `inputs`; for a network of several inputs a list of arrays.

        Returns:
            A JAX array, or a list where the network has several outputs.

        Raises:
            ValueError: The arrays have another shape or dtype.
        """
        arrays = [each if isinstance(each, jax.Array) else np.asarray(each) for each in jax.tree.leaves(x)]
        fits = len(arrays) == len(self.inputs) and all(
            array.dtype == wanted.dtype and array.ndim == wanted.ndim and array.shape[1:] == wanted.shape[1:]
            for array, wanted in zip(arrays, self.inputs, strict=True)
        )
        if not fits:
            wanted, found = (", ".join(f"{a.dtype}{a.shape}" for a in some) for some in (self.inputs, arrays))
            raise ValueError(f"The network takes {wanted}, got {found}")
        return self.function(*self.weights, x)

    @property
    def inputs(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Shape and dtype of every input; the batch is a name."""
        arguments, _ = jax.tree.unflatten(self.lowered.in_tree, self.lowered.in_avals)
        return tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(arguments[-1]))


def load_exported(path: str | os.PathLike[str]) -> ExportedNetwork:
    """Reads a file of `export`, and the weights beside it where they are not inside.

    Args:
        path: The file.

    Returns:
        The network: call it with a batch of images.

    Raises:
        ImportError: The flatbuffers package is missing.
        ValueError: It is no such file, or was not written for this platform.
        OSError: It, or the weights beside it, cannot be read.
        WeightError: What lies beside it is no `.npz` file, or has other arrays than the network needs.
    """
    _require_flatbuffers()
    contents = bytearray(Path(path).read_bytes())
    try:
        lowered = jax.export.deserialize(contents)
    except Exception as error:  # flatbuffers checks nothing: any of struct.error, IndexError, UnicodeDecodeError, ...
        raise ValueError(f"{os.fspath(path)} is no file of flaxapps.export or jax.export: {error}") from error
    platform = jax.export.default_export_platform()
    if platform not in lowered.platforms:
        raise ValueError(f"{os.fspath(path)} was exported for {', '.join(lowered.platforms)}; this is {platform}")
    arguments, _ = jax.tree.unflatten(lowered.in_tree, lowered.in_avals)
    weights = tuple(_load_weights(weights_path(path), each) for each in arguments[:-1])
    return ExportedNetwork(lowered, jax.jit(lowered.call), weights)


def weights_path(path: str | os.PathLike[str]) -> Path:
    """Where the weights of a StableHLO file are that are not inside."""
    return Path(path).with_suffix(".npz")


def _load_weights(path: Path, wanted: Mapping[str, Any]) -> Mapping[str, jax.Array]:
    arrays = _flatten(load_npz(path), sep=SEPARATOR)
    missing = [f"{key} {leaf.shape}" for key, leaf in wanted.items() if key not in arrays]
    unexpected = [f"{key} {array.shape}" for key, array in arrays.items() if key not in wanted]
    misshapen = [
        f"{key} {array.shape} instead of {wanted[key].shape}"
        for key, array in arrays.items()
        if key in wanted and array.shape != wanted[key].shape
    ]
    if missing or unexpected or misshapen:
        raise WeightError(f"{path} does not hold the weights of the network", missing, unexpected, misshapen)
    weights: Mapping[str, jax.Array] = jax.device_put(
        {key: arrays[key].astype(leaf.dtype) for key, leaf in wanted.items()}
    )
    return weights


def _require_flatbuffers() -> None:
    if find_spec("flatbuffers") is None:
        raise ImportError("jax.export writes and reads files with flatbuffers: pip install 'flaxapps[export]'")
