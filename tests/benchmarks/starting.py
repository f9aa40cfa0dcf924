"""Seconds to the first prediction in a fresh process, ours and Keras on JAX: `python -m tests.benchmarks.starting`.

Import, load ResNet50's weights from a file, compile, predict one photo; with nothing kept and with JAX's compilation
cache filled by the first round. Every measurement is a process of its own, and they take turns.
"""

import argparse
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.benchmarks.loading import median, spread, take_turns, write_resnet50

START = """
import json, os, sys, time
start = time.perf_counter()
os.environ["KERAS_BACKEND"] = "jax"
import jax, numpy as np
if sys.argv[2]:
    jax.config.update("jax_compilation_cache_dir", sys.argv[2])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)  # as the command line does
photo = np.random.default_rng(0).random((1, 224, 224, 3), np.float32)
"""
OURS = """
from flaxapps import predict
from flaxapps.resnet50 import ResNet50
predict(*ResNet50(weights=sys.argv[1]), photo)
"""
KERAS = """
import keras
network = keras.applications.ResNet50(weights=None)
network.load_weights(sys.argv[1])
network.predict(photo, verbose=0)
"""
STOP = """
print(json.dumps({"seconds": time.perf_counter() - start}))
"""


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.starting", description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=3, help="after a first that fills the cache (default 3)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        weights = str(write_resnet50(Path(folder) / "resnet50.weights.h5"))
        programs = {"flaxapps": START + OURS + STOP, "Keras on JAX": START + KERAS + STOP}
        kept = {"": "", "cache warm": str(Path(folder) / "cache")}
        names = [(name, state) for state in kept for name in programs]
        commands = [(programs[name], weights, kept[state]) for name, state in names]
        found = dict(zip(names, take_turns(options.repetitions, *commands), strict=True))
    table = Table(title="Seconds to the first prediction of ResNet50")
    for heading in ("", "", "median s", "range s", "against Keras without a cache"):
        table.add_column(heading)
    against = median(found["Keras on JAX", ""])
    for (name, state), times in found.items():
        table.add_row(name, state, f"{median(times):.1f}", spread(times), f"{median(times) / against:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
