"""All that should hold on a GPU or TPU, tried on the one of this machine: `python -m tests.device`.

Needs a checkout with its dependencies and JAX for the accelerator (`pip install -e . "jax[cuda12]"`); Keras and torch
are measured beside flaxapps where they are installed. What comes first matters most: whatever does not fit into the
time is named as not run. Figures are in the JSON file from the first one on. Exits with 1 if a bound is exceeded.
"""

import argparse
import datetime
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # several runtimes share the accelerator

import jax

from tests.device import checks
from tests.device.checks import NETWORKS, Row
from tests.device.speed import RUNTIMES
from tests.places import ROOT
from tests.recipe import CLASSIC

PACKAGES = ("jax", "jaxlib", "flax", "optax", "keras", "torch", "numpy")
NEEDED = {"keras-jax": "keras", "torch": "torchvision"}


def speed(runtime: str, size: int, batch: int, left: Callable[[], float]) -> Iterator[Row]:
    """One runtime on ResNet50, in a process of its own, which ends with the time that is left."""
    command = [sys.executable, "-m", "tests.device.speed", runtime, "--size", str(size), "--batch", str(batch)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=max(left(), 1))
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["it ended without a word"])[-1])
    for figure, value in json.loads(done.stdout.splitlines()[-1]).items():
        yield Row("speed", runtime, f"{figure}, batch {batch}", value)


def plan(options: argparse.Namespace, left: Callable[[], float]) -> Iterator[tuple[str, Callable[[], Iterator[Row]]]]:
    """All checks with their names, the most important ones first."""
    yield "ten steps", partial(checks.training, options.size)
    for network in options.networks:
        if network in CLASSIC:
            yield f"outputs of {network}", partial(checks.outputs, network, options.size)
    for runtime in options.runtimes:
        needed = NEEDED.get(runtime.removesuffix("-bfloat16"))
        if needed is None or importlib.util.find_spec(needed):
            yield f"speed of {runtime}", partial(speed, runtime, options.size, options.batch, left)
    yield "exported file and int8", partial(checks.exported, options.networks[0], options.size)
    for network in options.networks:
        if network not in CLASSIC:
            yield f"outputs of {network}", partial(checks.outputs, network, options.size)


def machine() -> dict[str, Any]:
    """What the figures are of."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "devices": [device.device_kind for device in jax.devices()],
        "platform": jax.default_backend(),
        "versions": versions,
    }


def table(rows: list[Row]) -> str:
    """Lines of 88 characters at most, without any package."""
    lines = [f"{'check':<10} {'network':<20} {'figure':<40} {'value':>9}  bound"]
    for row in rows:
        bound = "" if row.bound is None else f"{row.bound:g}" + (" EXCEEDED" if row.failed else "")
        lines.append(f"{row.check:<10} {row.network:<20} {row.figure:<40} {row.value:>9.3g}  {bound}".rstrip())
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Runs the checks, prints a table and writes JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.device", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--json", type=Path, default=Path("device.json"), help="where figures go (default: device.json)"
    )
    parser.add_argument("--seconds", type=float, default=460, help="no check starts later (460)")
    parser.add_argument("--size", type=int, default=224, help="of images (224)")
    parser.add_argument("--batch", type=int, default=64, help="images in a batch for speed (64)")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), metavar="NAME")
    parser.add_argument("--runtimes", nargs="*", choices=RUNTIMES, default=list(RUNTIMES), metavar="NAME")
    options = parser.parse_args(arguments)
    begun, rows, problems = time.monotonic(), list[Row](), list[str]()
    report: dict[str, Any] = machine() | {"rows": [], "problems": problems}

    def left() -> float:
        return options.seconds - (time.monotonic() - begun)

    print(", ".join(report["devices"]), f"({report['platform']}), jax {report['versions']['jax']}", flush=True)
    for name, check in plan(options, left):
        if left() <= 0:
            problems.append(f"{name}: not run, out of time")
            continue
        print(f"{time.monotonic() - begun:4.0f} s  {name}", flush=True)
        try:
            rows += check()
        except Exception as error:  # the others should still be tried
            problems.append(f"{name}: {type(error).__name__}: {error}")
        report["rows"] = [row._asdict() for row in rows]
        options.json.write_text(json.dumps(report, indent=1))
    print("\n".join([table(rows), *problems]))
    report["seconds"] = round(time.monotonic() - begun, 1)
    options.json.write_text(json.dumps(report, indent=1))
    return int(bool(problems) or any(row.failed for row in rows))


if __name__ == "__main__":
    sys.exit(main())
