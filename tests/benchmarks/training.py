"""Fine-tuning InceptionV3 beside Keras 3 on JAX: head, top two blocks, everything; seconds and peak memory.

Run with `python -m tests.benchmarks.training`. Every measurement is a process of its own; those compared take turns, so
that a busy machine slows all. Both train once to compile before the clock starts; programs come from a cache on disk
after the first round, which is not counted.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.benchmarks.loading import MEGABYTE, median, spread, take_turns

PACKAGES = ("jax", "jaxlib", "flax", "optax", "keras", "numpy")

COMMON = """
import json, os, pathlib, re, sys, time
os.environ["KERAS_BACKEND"] = "jax"
import jax
import numpy as np
task = json.loads(sys.argv[1])
jax.config.update("jax_compilation_cache_dir", task["programs"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
size, batch, count = task["size"], task["batch"], task["images"]
random = np.random.default_rng(0)
images = random.uniform(-1, 1, (count, size, size, 3)).astype("float32")
labels = random.integers(0, 5, count).astype("int32")

def report(fit):
    fit(images[:batch], labels[:batch], 1)
    start = time.perf_counter()
    fit(images, labels, task["epochs"])
    seconds = time.perf_counter() - start
    peak = 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])
    print(json.dumps({"seconds": seconds, "peak_bytes": peak}))
"""
OURS = (
    COMMON
    + """
import optax
from flaxapps import Input, Model, layers, train
from flaxapps.inception_v3 import features
from tests.recipe import recipe_variables

image = Input((size, size, 3))
x = layers.Dense(1024, activation="relu")(layers.GlobalAveragePooling2D()(features(image)))
model = Model(image, layers.Dense(5, activation="softmax")(x))
variables = recipe_variables(model)
frozen = train.frozen_layers(model, until=task["frozen"]) if task["frozen"] else frozenset()
optimizer = optax.rmsprop(1e-3) if task["optimizer"] == "rmsprop" else optax.sgd(1e-4, momentum=0.9)

way = dict(task["way"])
if "computation" in way:
    way["computation"] = train.Computation(**way["computation"])

def fit(images, labels, epochs):
    result = train.fit(
        model, variables, (images, labels), optimizer=optimizer, batch_size=batch, epochs=epochs, frozen=frozen,
        loss="sparse_categorical_crossentropy", verbose=False, **way,
    )
    jax.block_until_ready(result.variables)

report(fit)
"""
)
KERAS = (
    COMMON
    + """
import keras
from tests.golden.recipe import weight
from tests.networks import zero_initial_weights
from tests.recipe import SEED
with zero_initial_weights():
    base = keras.applications.InceptionV3(weights=None, include_top=False, input_shape=(size, size, 3))
    x = keras.layers.Dense(1024, activation="relu")(keras.layers.GlobalAveragePooling2D()(base.output))
    model = keras.Model(base.input, keras.layers.Dense(5, activation="softmax")(x))
for index, layer in enumerate(model.layers):
    layer.set_weights([weight(SEED, index, number, each.path, each.shape) for number, each in enumerate(layer.weights)])
for layer in model.layers[:task["frozen"]]:
    layer.trainable = False
rmsprop = task["optimizer"] == "rmsprop"
optimizer = keras.optimizers.RMSprop(1e-3) if rmsprop else keras.optimizers.SGD(1e-4, momentum=0.9)
model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])

def fit(images, labels, epochs):
    model.fit(images, labels, batch_size=batch, epochs=epochs, verbose=0)
    jax.block_until_ready([each.value for each in model.weights])

report(fit)
"""
)


WAYS: dict[str, dict[str, Any]] = {
    "every step": {},
    "cached features": {"cache_features": True},
    "fast frozen layers": {"computation": {"optimize_frozen": "fast"}},
}


@dataclass(frozen=True)
class Phase:
    """What is trained, from which layer on, in how many epochs, how, and how much faster than Keras it should be."""

    name: str
    frozen: int
    optimizer: str
    epochs: int
    ways: tuple[str, ...]
    target: float


PHASES = (
    Phase("head", 311, "rmsprop", 10, ("cached features",), 5.0),
    Phase("top two blocks", 249, "sgd", 3, tuple(WAYS), 1.2),
    Phase("everything", 0, "sgd", 1, ("every step",), 1.0),
)


def compare(phase: Phase, task: dict[str, Any], repetitions: int) -> list[dict[str, Any]]:
    """Keras, then every way of ours, with ratios to Keras above 1 where ours is faster or smaller."""
    task = task | {"frozen": phase.frozen, "optimizer": phase.optimizer, "epochs": phase.epochs}
    commands = [(KERAS, json.dumps(task))] + [(OURS, json.dumps(task | {"way": WAYS[way]})) for way in phase.ways]
    runs = list(take_turns(repetitions, *commands))
    names = ["Keras", *phase.ways]
    reference = runs[0]
    return [
        {
            "phase": f"{phase.name}, {phase.epochs} epochs",
            "way": name,
            "seconds": median(run),
            "range": spread(run),
            "faster": median(reference) / median(run),
            "target": phase.target if run is not reference else None,
            "peak_megabytes": median(run, "peak_bytes") / MEGABYTE,
            "smaller": median(reference, "peak_bytes") / median(run, "peak_bytes"),
        }
        for name, run in zip(names, runs, strict=True)
    ]


def machine() -> str:
    """Processor, cores and how busy they are."""
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{found[1] if found else platform.processor()}, {os.cpu_count()} cores, load {load}"


def show(results: list[dict[str, Any]], caption: str) -> None:
    """Prints a table."""
    table = Table(title="Fine-tuning InceptionV3 beside Keras 3 on JAX", caption=caption)
    for heading in ("trained", "", "median s", "range s", "times faster", "target", "peak MB", "times smaller"):
        table.add_column(heading, justify="left" if heading in ("trained", "") else "right")
    for row in results:
        ours = row["target"] is not None
        ratios = [f"{row[key]:.2f}" if ours else "" for key in ("faster", "target", "smaller")]
        table.add_row(
            row["phase"],
            row["way"],
            f"{row['seconds']:.2f}",
            row["range"],
            *ratios[:2],
            f"{row['peak_megabytes']:.0f}",
            ratios[2],
        )
    Console().print(table)


def main() -> None:
    """Measures, prints a table and writes JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.training", description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=3, help="times each is measured (default 3)")
    parser.add_argument("--size", type=int, default=150, help="of the images, in pixels (default 150)")
    parser.add_argument("--batch", type=int, default=16, help="images in a batch (default 16)")
    parser.add_argument("--images", type=int, default=48, help="images in an epoch (default 48)")
    parser.add_argument("--phase", choices=[phase.name for phase in PHASES], help="only this one")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    options = parser.parse_args()
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    caption = (
        f"{options.images} images of {options.size}x{options.size} in batches of {options.batch}; "
        f"Python {platform.python_version()}, {versions}; {machine()}"
    )
    results = []
    with tempfile.TemporaryDirectory() as programs:
        task = {"size": options.size, "batch": options.batch, "images": options.images, "programs": programs}
        for phase in PHASES:
            if options.phase in (None, phase.name):
                results += compare(phase, task, options.repetitions)
    show(results, caption)
    if options.json:
        options.json.write_text(json.dumps({"setting": caption, "results": results}, indent=1))


if __name__ == "__main__":
    main()
