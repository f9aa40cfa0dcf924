"""Export of networks to StableHLO files, which JAX runs on any platform without flaxapps."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np

from flaxapps.graph.symbolic import Node, as_given
from flaxapps.inference.compile import batch_inputs
from flaxapps.inference.predict import forward
from flaxapps.inference.preprocessing import Function, preprocessing_function
from flaxapps.model import Model
from flaxapps.ops.primitives import at_least_float32
from weight_port import WeightError
from weight_port.atomic import replacing
from weight_port.trees import join_path, load_npz, nest, save_npz, split_path
from weight_port.writers import leaves

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
WEIGHTS = ("inside", "beside")


def _flat_arrays(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {join_path(path): leaf for path, leaf in leaves(tree)}


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
    """Writes a network in inference mode to one StableHLO file, for batches of any size on several platforms.

    JAX alone runs it, for as long as `jax.export` guarantees (at least six months of newer versions):

        import pathlib, jax, jax.export
        network = jax.export.deserialize(bytearray(pathlib.Path("resnet50.stablehlo").read_bytes()))
        scores = jax.jit(network.call)(photos)

    With weights="beside" the weights are the first argument:
    `network.call(dict(numpy.load("resnet50.npz")), photos)`.

    Args:
        model: The network.
        variables: Its arrays.
        path: The file to write; an existing one is replaced.
        input_shape: Shape of one image in the model's layout; a list of shapes for a model with several inputs. None
            takes the model's own.
        dtype: Dtype of the images: "float32", "uint8" or any other numeric one.
        preprocess: Preprocessing to include before the network, as for `predict`.
        platforms: Platforms to lower for: any of "cpu", "cuda", "rocm" and "tpu".
        weights: "inside" the file, as constants; or "beside" it, in an `.npz` file of the same name whose keys are
            paths such as "params/conv1/kernel", so that they can be replaced.

    Raises:
        ImportError: The flatbuffers package is missing.
        ValueError: The shape, dtype, preprocessing, platforms or weights are not as described above.
        OSError: A file cannot be written.
    """
    _require_flatbuffers()
    unknown = sorted({*platforms} - {*PLATFORMS})
    if unknown or not platforms:
        raise ValueError(f"platforms should be some of {', '.join(PLATFORMS)}, got {', '.join(unknown) or 'none'}")
    if weights not in WEIGHTS:
        raise ValueError(f"weights should be 'inside' or 'beside', got {weights!r}")
    if weights == "beside" and weights_path(path) == Path(path):
        raise ValueError(f"{path}: the weights would take the name of the file; give it the suffix .stablehlo")
    function = preprocessing_function(model, preprocess)
    (batch,) = jax.export.symbolic_shape("batch")
    shapes = batch_inputs(model, batch, input_shape, dtype)
    inputs = as_given(model.input, shapes)
    flat: dict[str, Any] = _flat_arrays(variables)

    def compute(flat: Mapping[str, Any], x: Any) -> Any:
        outputs = forward(
            model,
            function,
            nest({split_path(key): leaf for key, leaf in flat.items()}),
            [x] if isinstance(model.input, Node) else x,
        )
        return as_given(model.output, outputs)

    if weights == "inside":
        lowered = jax.export.export(jax.jit(lambda x: compute(flat, x)), platforms=platforms)(inputs)
    else:
        lowered = jax.export.export(jax.jit(compute), platforms=platforms)(jax.eval_shape(lambda: flat), inputs)
        save_npz(weights_path(path), jax.tree.map(at_least_float32, dict(variables)))  # NumPy has no bfloat16
    with replacing(path) as part:
        Path(part).write_bytes(lowered.serialize())


@dataclass(frozen=True, eq=False)
class ExportedNetwork:
    """A network read from a StableHLO file. `network(x)` computes, on the platforms it was exported for.

    Attributes:
        lowered: Result of `jax.export`, with `platforms`, `in_avals`, `out_avals` and `mlir_module()`.
        function: Its jitted call, compiled once for each batch size.
        weights: Arrays from the file beside it, on the device; empty if they are inside.
    """

    lowered: jax.export.Exported
    function: Callable[..., Any]
    weights: tuple[Mapping[str, jax.Array], ...]

    def __call__(self, x: Any) -> Any:
        """Computes the outputs for a batch of any size. Each size is compiled once.

        Args:
            x: Images of the shape and dtype of `inputs`; a list of arrays for a network with several inputs.

        Returns:
            A JAX array, or a list if the network has several outputs.

        Raises:
            ValueError: The arrays do not have the shape and dtype of `inputs`.
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
        """Shape and dtype of every input; the batch dimension is symbolic."""
        arguments, _ = jax.tree.unflatten(self.lowered.in_tree, self.lowered.in_avals)
        return tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(arguments[-1]))


def load_exported(path: str | os.PathLike[str]) -> ExportedNetwork:
    """Reads a file of `export`, and its weights if they are beside it.

    Args:
        path: The file.

    Returns:
        The network: call it with a batch of images.

    Raises:
        ImportError: The flatbuffers package is missing.
        ValueError: The file is not a StableHLO file of `jax.export`, or was not exported for this platform.
        OSError: The file, or that of the weights, cannot be read.
        WeightError: The file of the weights is not an `.npz` file, or its arrays do not fit the network.
    """
    _require_flatbuffers()
    contents = bytearray(Path(path).read_bytes())
    try:
        lowered = jax.export.deserialize(contents)
    except Exception as error:  # flatbuffers validates nothing: struct.error, IndexError, UnicodeDecodeError, ...
        raise ValueError(f"{os.fspath(path)} is not a file of flaxapps.export or jax.export: {error}") from error
    platform = jax.export.default_export_platform()
    if platform not in lowered.platforms:
        raise ValueError(
            f"{os.fspath(path)} was exported for {', '.join(lowered.platforms)}; this is {platform}. "
            "Export it with this platform in `platforms`"
        )
    arguments, _ = jax.tree.unflatten(lowered.in_tree, lowered.in_avals)
    weights = tuple(_load_weights(weights_path(path), each) for each in arguments[:-1])
    return ExportedNetwork(lowered, jax.jit(lowered.call), weights)


def weights_path(path: str | os.PathLike[str]) -> Path:
    """Returns the path of weights beside a StableHLO file."""
    return Path(path).with_suffix(".npz")


def _load_weights(path: Path, wanted: Mapping[str, Any]) -> Mapping[str, jax.Array]:
    arrays = _flat_arrays(load_npz(path))
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
