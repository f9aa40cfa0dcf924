"""What loading weights costs, beside reading and hashing the file and beside Keras, and the import beside Flax's.

Run with `python -m tests.benchmarks.loading`. Every measurement is a process of its own; the two things compared take
turns, so that a busy machine slows both.
"""

import argparse
import importlib.metadata
import json
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
from rich.console import Console
from rich.table import Table

from tests.places import ROOT

PACKAGES = ("jax", "jaxlib", "flax", "h5py", "numpy")
MEGABYTE = 1e6

READ_AND_HASH = """
import hashlib, json, sys, time
start = time.perf_counter()
with open(sys.argv[1], "rb") as file:
    hashlib.file_digest(file, "md5").hexdigest()
print(json.dumps({"seconds": time.perf_counter() - start}))
"""
LOAD = """
import json, pathlib, re, resource, sys, time
import jax
from flaxapps.vgg16 import VGG16

def peak_bytes():
    status = pathlib.Path("/proc/self/status")
    if status.exists():  # here ru_maxrss starts from that of the process that started this one
        return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

jax.device_put(0.0).block_until_ready()
before, start = peak_bytes(), time.perf_counter()
network = jax.block_until_ready(VGG16(weights=sys.argv[1]).variables)
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "peak_bytes": peak_bytes(), "bytes_before": before}))
"""
IMPORT = """
import json, sys, time
start = time.perf_counter()
for name in sys.argv[1:]:
    __import__(name)
print(json.dumps({"seconds": time.perf_counter() - start}))
"""


SECONDS_OF_LOAD = """
start = time.perf_counter()
loaded = load()
print(json.dumps({"seconds": time.perf_counter() - start}))
"""
# Both networks stand and JAX has started before the clock does; the arrays of both are on the device when it stops.
RESNET50 = """
import json, sys, time
import jax, weight_port
from flaxapps.model import on_device
from flaxapps.registry import build_model
model = build_model("resnet50")
jax.block_until_ready(jax.device_put(0.0))
load = lambda: jax.block_until_ready(on_device(weight_port.load_weights(sys.argv[1], model)))
"""
RESNET50_IN_KERAS = """
import json, os, sys, time
os.environ["KERAS_BACKEND"] = "jax"
import jax, keras
network = keras.applications.ResNet50(weights=None)
load = lambda: (network.load_weights(sys.argv[1]), jax.block_until_ready([each.value for each in network.weights]))
"""


def write_resnet50(path: Path) -> Path:
    """Writes a `.h5` or `.weights.h5` of today's ResNet50 with random numbers."""
    import weight_port
    from flaxapps.registry import build_model

    model = build_model("resnet50")
    weight_port.save_weights(path, model, model.init_variables())
    return path


def write_vgg16(path: Path) -> Path:
    """Writes a legacy file with the names and shapes of VGG16's published one, and random numbers."""
    from flaxapps.registry import build_model
    from weight_port.layout import layer_targets

    random = np.random.default_rng(0)
    layers = build_model("vgg16").layers
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in layers]
        for layer in layers:
            group = file.create_group(layer.name)
            targets = layer_targets(layer)
            group.attrs["weight_names"] = [f"{layer.name}/{target.variable}:0".encode() for target in targets]
            for target in targets:
                group[f"{layer.name}/{target.variable}:0"] = random.standard_normal(target.shape, "float32")
    return path


def measure(code: str, *arguments: str) -> dict[str, float]:
    """Runs code in a fresh interpreter; gives what it prints."""
    command = [sys.executable, "-c", code, *arguments]
    process = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(process.stdout.splitlines()[-1])
    return found


def take_turns(repetitions: int, *commands: tuple[str, ...]) -> Iterator[list[dict[str, float]]]:
    """All measurements of each command; the first round only warms the disk cache."""
    rounds = [[measure(*command) for command in commands] for _ in range(repetitions + 1)]
    return map(list, zip(*rounds[1:], strict=True))


def median(measurements: list[dict[str, float]], key: str = "seconds") -> float:
    """The median of one figure."""
    return statistics.median(each[key] for each in measurements)


def spread(measurements: list[dict[str, float]]) -> str:
    """The smallest and the largest time."""
    seconds = [each["seconds"] for each in measurements]
    return f"{min(seconds):.2f} to {max(seconds):.2f}"


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.loading", description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=5, help="times a file is loaded (default 5)")
    parser.add_argument("--import-repetitions", type=int, default=9, help="times an import is measured (default 9)")
    parser.add_argument("--folder", help="where the 553 MB file goes for the time being (default: a temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = write_vgg16(Path(folder) / "vgg16.h5")
        size = path.stat().st_size
        reads, loads = take_turns(options.repetitions, (READ_AND_HASH, str(path)), (LOAD, str(path)))
        kinds = {}
        for suffix in ("h5", "weights.h5"):
            path = write_resnet50(Path(folder) / f"resnet50.{suffix}")
            commands = [(code + SECONDS_OF_LOAD, str(path)) for code in (RESNET50, RESNET50_IN_KERAS)]
            kinds[suffix] = list(take_turns(options.repetitions, *commands))
    flax, both = take_turns(options.import_repetitions, (IMPORT, "flax"), (IMPORT, "flax", "flaxapps"))

    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    table = Table(
        title=f"Loading VGG16's {size / MEGABYTE:.0f} MB, and ResNet50's 103 MB",
        caption=f"Python {platform.python_version()}, {versions}",
    )
    for heading in ("", "median s", "range s", "against the other"):
        table.add_column(heading, justify="left" if not heading else "right")
    table.add_row("read and MD5", f"{median(reads):.2f}", spread(reads), "")
    table.add_row(
        "VGG16(weights=path)", f"{median(loads):.2f}", spread(loads), f"{median(loads) / median(reads):.2f} times"
    )
    for suffix, (ours, theirs) in kinds.items():
        table.add_row(f"Keras on JAX, ResNet50 .{suffix}", f"{median(theirs):.2f}", spread(theirs), "")
        table.add_row(
            f"load_weights, ResNet50 .{suffix}",
            f"{median(ours):.2f}",
            spread(ours),
            f"{median(ours) / median(theirs):.2f} times",
        )
    table.add_row("import flax", f"{median(flax):.2f}", spread(flax), "")
    table.add_row("import flax, flaxapps", f"{median(both):.2f}", spread(both), f"{median(both) - median(flax):+.2f} s")
    console = Console()
    console.print(table)
    before, peak = (median(loads, key) / MEGABYTE for key in ("bytes_before", "peak_bytes"))
    console.print(
        f"Peak resident memory of VGG16(weights=path): {peak:.0f} MB, of which {before:.0f} MB before loading"
    )


if __name__ == "__main__":
    main()
