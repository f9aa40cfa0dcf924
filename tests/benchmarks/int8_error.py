"""How much int8 changes the real Xception of `flaxapps demo`, here and in other runtimes, on the same photos.

Run with `python -m tests.benchmarks.int8_error`; `--network` takes a network with random weights instead, whose
statistics are those of the photos. Keras on torch exports the model to ONNX; ONNX Runtime and OpenVINO quantize that
file, each as in `tests.benchmarks.inference`. Everything is calibrated on one half of the 18 photos and judged on the
other, then the other way round.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

import flaxapps
from flaxapps.applications.imagenet_utils import preprocess_input
from flaxapps.demo.photos import fetch_demo
from flaxapps.photos.reading import photo_format, read_photos
from flaxapps.registry import get_application
from tests.benchmarks import runtimes
from tests.benchmarks.networks import NETWORKS, SIZES
from tests.benchmarks.random_weights import with_statistics
from tests.benchmarks.runtimes import Run
from tests.places import ROOT

EXPORT = """
import os, sys
os.environ["KERAS_BACKEND"] = "torch"
import keras, torch

class ChannelsFirst(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x.permute(0, 2, 3, 1))

source, target, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
network = ChannelsFirst(keras.models.load_model(source, compile=False)).eval()
images, shapes = torch.zeros(2, 3, size, size), ({0: torch.export.Dim("batch")},)
torch.onnx.export(network, (images,), dynamic_shapes=shapes, dynamo=True, verbose=False).save(target)
"""
Open = Callable[[np.ndarray], Run]  # of the photos to calibrate on


class Judged(NamedTuple):
    """The change of the logits of all photos.

    Attributes:
        largest: The largest change, as a part of the range of the logits in float32.
        rms: The root of the mean square, likewise.
        agreeing: Photos whose largest logit stays the same.
    """

    largest: float
    rms: float
    agreeing: int


def judge(exact: np.ndarray, rounded: np.ndarray) -> Judged:
    """Compares logits (photos, classes)."""
    change = (rounded - exact) / np.ptp(exact)
    agreeing = int((exact.argmax(1) == rounded.argmax(1)).sum())
    return Judged(float(np.abs(change).max()), float(np.sqrt(np.square(change).mean())), agreeing)


def crosswise(open_network: Open, photos: np.ndarray) -> np.ndarray:
    """The logits of all photos, each by a network calibrated on the other half."""
    logits = [np.asarray(open_network(photos[1 - half :: 2])(photos[half::2])) for half in range(2)]
    result = np.empty((len(photos), logits[0].shape[1]), np.float32)
    result[::2], result[1::2] = logits
    return result


def ways(model: flaxapps.Model, variables: dict[str, object], onnx: Path) -> dict[str, Open]:
    """Every runtime and mode; those that are not quantized need no photos."""

    def ours(calibration: str) -> Open:
        return lambda photos: runtimes.compiled_flaxapps(
            *flaxapps.quantize(model, variables, photos, calibration=calibration)  # type: ignore[arg-type]  # a string
        )

    def quantized_by_onnxruntime(photos: np.ndarray) -> Run:
        onnx.with_suffix(".int8.onnx").unlink(missing_ok=True)  # of the other half
        return runtimes.run_onnxruntime(runtimes.quantized_by_onnxruntime(onnx, photos))

    return {
        "flaxapps, int8": ours("mse"),
        'flaxapps, int8, calibration="minmax"': ours("minmax"),
        "ONNX Runtime, int8": quantized_by_onnxruntime,
        "OpenVINO, int8": lambda photos: runtimes.run_openvino(runtimes.quantized_by_nncf(onnx, photos)),
        "flaxapps, bfloat16": lambda photos: runtimes.compiled_flaxapps(
            model, variables, optimize="default", precision="bfloat16"
        ),
        "OpenVINO, bfloat16 (its default)": lambda photos: runtimes.run_openvino(onnx),
        "ONNX Runtime, float32": lambda photos: runtimes.run_onnxruntime(onnx),
    }


def main() -> None:
    """Measures, prints a table and writes JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.int8_error", description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=NETWORKS, help="with random weights (default: the real Xception)")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    parser.add_argument("--onnx", type=Path, help="the exported network, where it is already there")
    options = parser.parse_args()
    data = fetch_demo()
    name = options.network
    model, variables = runtimes.build_flaxapps(name, SIZES[name]) if name else flaxapps.load_model(data.model)
    pixels = np.concatenate([batch for _, batch in read_photos(data.photos, photo_format(model))])
    scaled_inside = name and get_application(name).info.preprocessing == "none"
    photos = pixels.astype(np.float32) if scaled_inside else preprocess_input(pixels, "channels_last", mode="tf")
    if name:
        variables = with_statistics(model, variables, photos)
    exact = np.asarray(flaxapps.predict(model, variables, photos))
    with tempfile.TemporaryDirectory() as folder:
        onnx = options.onnx or Path(folder) / "network.onnx"
        if not onnx.is_file():
            source = data.model
            if name:
                source = Path(folder) / "network.keras"
                flaxapps.save_model(model, variables, source)
            command = [sys.executable, "-c", EXPORT, str(source), str(onnx), str(photos.shape[1])]
            subprocess.run(command, check=True, cwd=ROOT, stdout=sys.stderr)
        found = {each: judge(exact, crosswise(way, photos)) for each, way in ways(model, dict(variables), onnx).items()}
    title = f"{name} with random weights" if name else "Xception of `flaxapps demo`"
    table = Table(title=f"{title}, {len(photos)} photos: change of the logits, part of their range")
    for heading in ("", "largest", "root mean square", "same class"):
        table.add_column(heading, justify="right" if heading else "left")
    for way, each in found.items():
        table.add_row(way, f"{each.largest:.2%}", f"{each.rms:.2%}", f"{each.agreeing} of {len(photos)}")
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps({way: each._asdict() for way, each in found.items()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
