"""Training steps per second here, in Keras on JAX and in torch, in float32 and bfloat16.

Run with `python -m tests.benchmarks.training_steps`. Every runtime has a process of its own, which lives throughout and
computes only when it is its turn. A step is forward and backward pass and an update by SGD with momentum. bfloat16 is
`dtype="bfloat16"` here, Keras's policy "mixed_bfloat16" and torch's autocast: parameters stay float32 in all three.
"""

import argparse
import datetime
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from tests.benchmarks.inference import Worker, machine

PEERS = {
    "flaxapps": ("flaxapps", "float32"),
    "flaxapps-bfloat16": ("flaxapps", "bfloat16"),
    "torch": ("torch", "float32"),
    "torch-bfloat16": ("torch", "bfloat16"),
    "keras-jax": ("keras", "float32"),
    "keras-jax-bfloat16": ("keras", "bfloat16"),
}
# The last frozen layer below the top two blocks, and the modules of torch's network above it.
TOP = {
    "resnet50": ("conv5_block1_out", ("layer4.1.", "layer4.2.", "fc.")),
    "xception": ("block12_sepconv3_bn", ("block12.", "conv3.", "bn3.", "conv4.", "bn4.", "fc.")),
}
CLASSES = 5
Step = Callable[[np.ndarray, np.ndarray], Any]  # takes a step and waits for it


def open_flaxapps(network: str, size: int, dtype: str, top: bool) -> Step:
    """Ours."""
    import jax
    import optax

    from flaxapps import Model, layers, train
    from flaxapps.registry import build_model
    from flaxapps.runtime.process import keep_freed_memory

    keep_freed_memory()  # as the command line does
    base = build_model(network, include_top=False, pooling="avg", input_shape=(size, size, 3), min_size=32, dtype=dtype)
    model = Model(base.input, layers.Dense(CLASSES, activation="softmax")(base.output))
    frozen = train.frozen_layers(model, until=TOP[network][0]) if top else frozenset()
    optimizer = optax.sgd(1e-4, momentum=0.9)
    objective = train.make_objective(model, "sparse_categorical_crossentropy")
    states = [train.create_state(model, model.init_variables(0), optimizer, frozen)]

    def step(images: np.ndarray, labels: np.ndarray) -> Any:
        state, sums = train.train_step(
            states.pop(), images, labels, objective=objective, optimizer=optimizer, frozen=frozen
        )
        states.append(state)
        return jax.block_until_ready((state, sums))

    return step


def open_keras(network: str, size: int, dtype: str, top: bool) -> Step:
    """Keras on JAX."""
    os.environ["KERAS_BACKEND"] = "jax"
    import keras

    from tests.benchmarks.networks import NETWORKS
    from tests.networks import zero_initial_weights

    keras.config.set_dtype_policy("float32" if dtype == "float32" else f"mixed_{dtype}")
    with zero_initial_weights():
        function = getattr(keras.applications, NETWORKS[network].keras)
        base = function(weights=None, include_top=False, pooling="avg", input_shape=(size, size, 3))
        model = keras.Model(base.input, keras.layers.Dense(CLASSES, activation="softmax", dtype="float32")(base.output))
    random = np.random.default_rng(0)
    model.set_weights([random.random(weight.shape, np.float32) / 16 for weight in model.weights])
    names = [layer.name for layer in model.layers]
    for layer in model.layers[: names.index(TOP[network][0]) + 1 if top else 0]:
        layer.trainable = False
    model.compile(keras.optimizers.SGD(1e-4, momentum=0.9), "sparse_categorical_crossentropy")
    return lambda images, labels: float(model.train_on_batch(images, labels))


def open_torch(network: str, size: int, dtype: str, top: bool) -> Step:
    """Channels last; bfloat16 by autocast."""
    import torch

    from tests.benchmarks.runtimes import cores, torch_model

    torch.set_num_threads(cores())
    model = torch_model(network).to(memory_format=torch.channels_last).train()
    model.fc = torch.nn.Linear(model.fc.in_features, CLASSES)
    for name, module in model.named_modules():
        if top and not f"{name}.".startswith(TOP[network][1]):
            module.training = False  # BatchNormalization stays as it is
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad = False
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, 1e-4, momentum=0.9)

    def step(images: np.ndarray, labels: np.ndarray) -> Any:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            outputs = model(torch.from_numpy(images).permute(0, 3, 1, 2))
        loss = torch.nn.functional.cross_entropy(outputs.float(), torch.from_numpy(labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


OPEN = {"flaxapps": open_flaxapps, "keras": open_keras, "torch": open_torch}


def work(peer: str) -> None:
    """A worker: opens a network, then takes a step at a time, for each line of JSON on stdin."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a runtime prints is no answer
    runtime, dtype = PEERS[peer]
    step: Step | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["do"] == "open":
                if runtime != "torch":
                    _cache_programs(request["programs"])
                images = np.random.default_rng(0).uniform(-1, 1, (request["batch"], *[request["size"]] * 2, 3))
                batch = images.astype(np.float32), np.arange(request["batch"]) % CLASSES
                step = OPEN[runtime](request["network"], request["size"], dtype, request["top"])
                step(*batch)  # compiles
            assert step is not None
            start = time.perf_counter()
            step(*batch)
            answer: dict[str, Any] = {"seconds": time.perf_counter() - start}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


def _cache_programs(folder: str) -> None:
    import jax

    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def measure(
    peers: Sequence[str], network: str, top: bool, options: argparse.Namespace
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Seconds of every step of each peer, in turns, and why others have none."""
    times: dict[str, list[float]] = {}
    absent = {}
    with ExitStack() as stack:
        workers = {}
        for peer in peers:
            workers[peer] = Worker(peer, sys.executable, "tests.benchmarks.training_steps", "--worker")
            stack.callback(workers[peer].close)
            what = {"network": network, "top": top, "size": options.size, "batch": options.batch}
            try:
                workers[peer].ask("open", **what, programs=options.programs)
                times[peer] = []
            except RuntimeError as error:
                absent[peer] = str(error)
        for _ in range(options.steps):
            for peer in times:
                times[peer].append(workers[peer].ask("step")["seconds"])
    return times, absent


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    program = "python -m tests.benchmarks.training_steps"
    parser = argparse.ArgumentParser(prog=program, description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=TOP, default=list(TOP), help="default: all")
    parser.add_argument("--layers", nargs="+", choices=("all", "top"), default=["all", "top"], help="default: both")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS), help="default: all")
    parser.add_argument("--steps", type=int, default=5, help="of each, after two that compile (default: 5)")
    parser.add_argument("--size", type=int, default=160, help="of the images, in pixels (default: 160)")
    parser.add_argument("--batch", type=int, default=16, help="images in a batch (default: 16)")
    parser.add_argument("--programs", default=".cache/steps", help="folder for programs that JAX compiled")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    parser.add_argument("--worker", choices=PEERS, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, prints tables and writes JSON."""
    options = parse(argv)
    if options.worker:
        work(options.worker)
        return
    console, found = Console(), []
    for network in options.networks:
        for trained in options.layers:
            times, absent = measure(options.peers, network, trained == "top", options)
            table = Table(title=f"{network}, {trained}: steps per second")
            for heading in ("", "median", "slowest", "fastest"):
                table.add_column(heading, justify="right" if heading else "left")
            for peer, seconds in times.items():
                ordered = (statistics.median(seconds), max(seconds), min(seconds))
                table.add_row(peer, *(f"{1 / each:.2f}" for each in ordered))
            console.print(table)
            for peer, reason in absent.items():
                console.print(f"absent: {peer} ({reason})", markup=False)
            found.append({"network": network, "layers": trained, "seconds": times, "absent": absent})
    if options.json:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes")
        report = {"machine": machine(), "date": now, "batch": options.batch, "size": options.size, "steps": found}
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
