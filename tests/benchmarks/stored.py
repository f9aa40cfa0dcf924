"""Stored networks: a file for each runtime and mode, and how it is opened. For `tests.benchmarks.memory`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.benchmarks import runtimes
from tests.benchmarks.runtimes import CALIBRATION_IMAGES, Run, images, onnx_path


class Stored(NamedTuple):
    """A way to store networks.

    Attributes:
        suffix: Of the file's name.
        write: Function of the network, the size of the images, the variant and the path.
        read: Function of the same.
    """

    suffix: str
    write: Callable[[str, int, str, Path], Any]
    read: Callable[[str, int, str, Path], Run]


def path_of(peer: str, network: str, size: int, folder: str) -> Path:
    """The file of a network in one runtime and mode."""
    return Path(folder) / f"{network}_{size}{STORED[peer].suffix}"


def bytes_of(path: Path) -> int:
    """Size of a stored network: OpenVINO's `.xml` has a second file for the weights."""
    weights = path.with_suffix(".bin").stat().st_size if path.suffix == ".xml" else 0
    return path.stat().st_size + weights


def write_flaxapps(network: str, size: int, variant: str, path: Path) -> None:
    """Optimizes or quantizes ours; our own format holds both."""
    import flaxapps

    model, variables = runtimes.build_flaxapps(network, size)
    if variant == "int8":
        model, variables = flaxapps.quantize(model, variables, images(CALIBRATION_IMAGES, size))
    else:
        mode, _, precision = variant.partition("-")
        how: Any = {"mode": mode, "precision": precision or "float32"}
        model, variables = flaxapps.optimize(model, variables, **how)
    flaxapps.save_model(model, variables, path)


def read_flaxapps(network: str, size: int, variant: str, path: Path) -> Run:
    """Compiled for each batch that comes; all optimization is in the file."""
    import flaxapps

    return runtimes.compiled_flaxapps(*flaxapps.load_model(path))


def write_keras(network: str, size: int, backend: str, path: Path) -> None:
    """The weights alone."""
    runtimes.build_keras(network, size, backend).save_weights(path)


def read_keras(network: str, size: int, backend: str, path: Path) -> Run:
    """Builds the network, then loads its weights."""
    model = runtimes.build_keras(network, size, backend)
    model.load_weights(path)
    return lambda x: np.asarray(model.predict_on_batch(x))


def write_torch(network: str, size: int, variant: str, path: Path) -> None:
    """The weights alone, in the dtype in which they are used."""
    import torch

    torch.save(runtimes.torch_model(network).to(dtype=getattr(torch, variant)).state_dict(), path)


def read_torch(network: str, size: int, variant: str, path: Path) -> Run:
    """Builds the network, then loads its weights."""
    import torch

    model = runtimes.torch_model(network)
    model.load_state_dict(torch.load(path), assign=True)
    return runtimes.run_torch(model, variant)


def write_exported(network: str, size: int, variant: str, path: Path) -> None:
    """ONNX, which both ONNX Runtime and OpenVINO read; quantized by either for "int8"."""
    plain = onnx_path(network, size, str(path.parent))
    if not plain.is_file():
        runtimes.write_onnx(network, size, plain)
    if path == plain:
        return
    calibration = images(CALIBRATION_IMAGES, size)
    if path.suffix == ".onnx":
        runtimes.quantized_by_onnxruntime(plain, calibration)
        return
    import openvino

    openvino.save_model(runtimes.quantized_by_nncf(plain, calibration), path)


def read_onnxruntime(network: str, size: int, variant: str, path: Path) -> Run:
    """A session of the file."""
    return runtimes.run_onnxruntime(path)


def read_openvino(network: str, size: int, variant: str, path: Path) -> Run:
    """Compiled for each batch that comes."""
    return runtimes.run_openvino(path, variant)


STORED = {
    "flaxapps": Stored(".default.npz", write_flaxapps, read_flaxapps),
    "flaxapps-fast": Stored(".fast.npz", write_flaxapps, read_flaxapps),
    "flaxapps-bfloat16": Stored(".bfloat16.npz", write_flaxapps, read_flaxapps),
    "flaxapps-int8": Stored(".int8.npz", write_flaxapps, read_flaxapps),
    "keras-jax": Stored(".weights.h5", write_keras, read_keras),
    "torch": Stored(".pt", write_torch, read_torch),
    "torch-bfloat16": Stored(".bfloat16.pt", write_torch, read_torch),
    "onnxruntime": Stored(".onnx", write_exported, read_onnxruntime),
    "onnxruntime-int8": Stored(".int8.onnx", write_exported, read_onnxruntime),
    "openvino": Stored(".onnx", write_exported, read_openvino),
    "openvino-float32": Stored(".onnx", write_exported, read_openvino),
    "openvino-int8": Stored(".int8.xml", write_exported, read_openvino),
}
