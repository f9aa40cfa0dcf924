"""Long running: memory and open files of a process that predicts on ever other shapes, or loads models again and again.

As a program of its own, `python -m tests.faults.enduring --minutes 30`: the process holds nothing else.
"""

import argparse
import functools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.faults.report import Row, at_most

MEGABYTE = 10**6
ALLOWED_GROWTH = 60.0  # MB, of which 35 are seen while caches fill; one without bounds adds 110 in 70 calls
SIZES = range(32, 128, 4)  # of square images: with batches and dtypes about a thousand shapes, of which 32 are kept


@dataclass(frozen=True)
class Endured:
    """What a process held, measured after each call.

    Attributes:
        calls: How many.
        seconds: For how long.
        compiled: Programs compiled by `predict`.
        first: Largest resident memory of the first quarter, in MB, in which caches fill.
        then: Of each of the other quarters.
        files: Open files after the first call and after the last.
    """

    calls: int
    seconds: float
    compiled: int
    first: float
    then: tuple[float, ...]
    files: tuple[int, int]

    @property
    def growth(self) -> float:
        """MB by which the last quarter is above the second."""
        return self.then[-1] - self.then[0]

    @property
    def problems(self) -> list[str]:
        """What has grown that should not."""
        found = [f"memory grew by {self.growth:.0f} MB"] if self.growth > ALLOWED_GROWTH else []
        return found + ([f"open files: {self.files}"] if self.files[1] > self.files[0] else [])


def resident() -> float:
    """Memory of this process in MB (Linux)."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / MEGABYTE


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def endure(call: Callable[[], None], minutes: float | None, calls: int | None) -> Endured:
    """Calls for so many minutes, or so many times."""
    from flaxapps.inference import predict as inference

    began, memory, files = time.monotonic(), list[float](), list[int]()
    while len(memory) < calls if calls else time.monotonic() - began < 60 * (minutes or 0):
        call()
        memory.append(resident())
        files = [*files[:1], open_files()]
    quarter = max(1, len(memory) // 4)
    then = tuple(max(memory[start : start + quarter]) for start in range(quarter, 4 * quarter, quarter))
    compiled = inference._program.cache_info().misses
    seconds = time.monotonic() - began
    return Endured(len(memory), seconds, compiled, max(memory[:quarter]), then, (files[0], files[-1]))


def prediction() -> Callable[[], None]:
    """A call of `predict` on images of another number and size each time."""
    import numpy as np

    from flaxapps import Input, Model, layers, predict

    x = y = Input((None, None, 3))
    for channels in (16, 32):
        y = layers.Conv2D(channels, 3, padding="same", use_bias=False)(y)
        y = layers.ReLU()(layers.BatchNormalization()(y))
        y = layers.SeparableConv2D(channels, 3, padding="same", activation="relu")(y)
        y = layers.MaxPooling2D(2)(y)
    model = Model(x, layers.Dense(10, activation="softmax")(layers.GlobalAveragePooling2D()(y)))
    variables, choose = model.init_variables(), random.Random(0)

    def call() -> None:
        count, size = choose.randint(1, 20), choose.choice(SIZES)
        dtype = choose.choice([np.uint8, np.float32])
        images = np.full((count, size, size, 3), 7, dtype)
        assert predict(model, variables, images, batch_size=choose.choice([4, 8, 16])).shape == (count, 10)

    return call


def loading(folder: Path) -> Callable[[], None]:
    """A call of `load_model`, in turns of two formats."""
    from flaxapps import Input, Model, layers, load_model, save_model

    x = Input((32, 32, 3))
    y = layers.BatchNormalization()(layers.Conv2D(64, 3, activation="relu")(x))
    y = layers.Dense(500)(layers.GlobalAveragePooling2D()(layers.Conv2D(256, 3)(y)))
    model = Model(x, y)
    files = [folder / "model.keras", folder / "model.h5"]
    save_model(model, model.init_variables(), files[0])
    files = [file for file in files if file.exists()]
    number = iter(range(10**9))

    def call() -> None:
        found, variables = load_model(files[next(number) % len(files)])
        assert len(variables["params"]) == 4
        assert len(found.layers) == 6

    return call


def in_a_process(*arguments: str) -> Endured:
    """What `main` prints for these arguments, run in a process of its own."""
    command = [sys.executable, "-m", "tests.faults.enduring", "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return Endured(**found | {name: tuple(found[name]) for name in ("then", "files")})


def row(what: str, endured: Endured) -> Row:
    said = f"{what}, {endured.seconds / 60:.1f} min, {endured.compiled:,} programs"
    memory = " ".join(f"{value:.0f}" for value in (endured.first, *endured.then))
    outcome = f"calls; resident MB by quarter {memory}; open files {endured.files[0]}, then {endured.files[1]}"
    return Row(said, {outcome: endured.calls}, tuple(f"{what}: {problem}" for problem in endured.problems))


def rows(count: int | None) -> Iterator[Row]:
    """The rows of this section: 30 minutes of predictions, and 2,000 models loaded."""
    length = ("--minutes", "30") if count is None else ("--calls", str(at_most(200, 40 * count)))
    yield row("predict on other shapes each time", in_a_process("predict", *length))
    yield row("load_model", in_a_process("load", "--calls", str(at_most(2000, None if count is None else 50 * count))))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.enduring", description=__doc__)
    parser.add_argument("what", choices=["predict", "load"], nargs="?", default="predict")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--calls", type=int, help="so many calls, however long they take")
    parser.add_argument("--unbounded", action="store_true", help="keep all programs, to see what that would do")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args(arguments)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from flaxapps.inference import predict as inference

    if options.unbounded:
        inference._program = functools.lru_cache(maxsize=None)(inference._program.__wrapped__)
    with tempfile.TemporaryDirectory() as folder:
        call = prediction() if options.what == "predict" else loading(Path(folder))
        endured = endure(call, options.minutes, options.calls)
    found = row(options.what, endured)
    print(
        json.dumps(asdict(endured)) if options.json else f"{found.tried}: {found.times:,} {next(iter(found.outcomes))}"
    )
    return 0 if options.json else bool(found.wrong)


if __name__ == "__main__":
    sys.exit(main())
