"""How fast networks run here and in other runtimes, in turns on the same cores: `python -m tests.benchmarks.inference`.

Every runtime has a process of its own, which lives throughout and computes only when it is its turn, so that whatever
else the machine does slows all of them. Medians are compared. Runtimes that are not installed are named as absent;
`--python torch=/some/venv/bin/python` runs one in another environment.

Each runtime has random weights of its own, and those of deep networks amplify every change. The errors show that a
reduced precision is in use; `tests.benchmarks.int8_error` compares errors, on the same weights in all runtimes.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from tests.benchmarks.networks import CLASSIC, NETWORKS, SIZES
from tests.benchmarks.runtimes import RUNTIMES, cores, onnx_path
from tests.places import ROOT

OURS = "flaxapps"
OURS_REDUCED = "flaxapps-int8"
# Whose float32 logits, of the same weights, those of a reduced precision are compared with.
EXACT = {"flaxapps": "flaxapps", "onnxruntime": "onnxruntime", "openvino": "onnxruntime", "torch": "onnxruntime"}


class Measurement(NamedTuple):
    """The seconds that one runtime took for one batch, each time.

    Attributes:
        network: Its name.
        batch: Images in a batch.
        peer: The runtime.
        seconds: A time for every repetition.
        peak_bytes: Largest resident size of the process when it had done so.
        compile_seconds: Seconds to open the network, with optimizing or quantizing it, and for the first batch of all.
        error: Largest change of a logit of eight images, as a part of the range of the logits; None for float32.
    """

    network: str
    batch: int
    peer: str
    seconds: list[float]
    peak_bytes: int
    compile_seconds: float = 0.0
    error: float | None = None

    @property
    def median(self) -> float:
        """The middle of the times."""
        return statistics.median(self.seconds)


class Worker:
    """A process with one runtime.

    Attributes:
        peer: The runtime.
    """

    def __init__(self, peer: str, python: str, module: str = "tests.benchmarks.peers", *options: str):
        self.peer = peer
        environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu"}
        command = [python, "-m", module, *options, peer]
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes)

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """What the worker answers.

        Raises:
            RuntimeError: It could not do it; the message is its error.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(json.dumps({"do": do, **request}), file=self._process.stdin, flush=True)
            answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError) as error:
            raise RuntimeError(f"the process ended with code {self._process.wait()}") from error
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def close(self) -> None:
        """Ends the process, which stops where its input ends."""
        self._process.communicate()


def start_workers(
    stack: ExitStack, peers: Sequence[str], pythons: Mapping[str, str]
) -> tuple[dict[str, Worker], dict[str, dict[str, str]], dict[str, str]]:
    """The workers, their versions, and why others are absent."""
    workers, found, absent = {}, {}, {}
    for peer in peers:
        try:
            worker = Worker(peer, pythons.get(peer, sys.executable))
            stack.callback(worker.close)
            versions = worker.ask("versions")
        except (OSError, RuntimeError) as error:
            absent[peer] = str(error)
            continue
        missing = [name for name, version in versions.items() if not version]
        if missing:
            absent[peer] = f"not installed: {', '.join(missing)}"
        else:
            workers[peer], found[peer] = worker, versions
    return workers, found, absent


def measure_network(
    workers: Mapping[str, Worker], network: str, size: int, batches: Sequence[int], repetitions: int, folder: str
) -> tuple[list[Measurement], dict[str, str]]:
    """All measurements of one network, the workers taking turns, and why some have none."""
    absent, ready, opened = {}, {}, {}
    onnx = onnx_path(network, size, folder)
    if {"torch", "torch-bfloat16"} & {*workers} and NETWORKS[network].torch and not onnx.is_file():
        next(workers[peer] for peer in ("torch", "torch-bfloat16") if peer in workers).ask(
            "onnx", network=network, size=size, path=str(onnx)
        )
    for peer, worker in workers.items():
        try:
            opened[peer] = worker.ask("open", network=network, size=size, folder=folder)["seconds"]
            ready[peer] = worker
        except RuntimeError as error:
            absent[f"{peer} on {network}"] = str(error)
    errors = _logit_errors(ready, size, Path(folder))
    measurements = []
    for batch in batches:
        answers: dict[str, list[dict[str, float]]] = {peer: [] for peer in ready}
        turns = deque(ready)
        for _ in range(repetitions + 1):  # the first compiles
            for peer in turns:
                answers[peer].append(ready[peer].ask("run", batch=batch, size=size))
            turns.rotate()  # nobody comes always after the same one
        for peer, given in answers.items():
            seconds = [answer["seconds"] for answer in given[1:]]
            measurements.append(
                Measurement(
                    network,
                    batch,
                    peer,
                    seconds,
                    int(given[-1]["peak_bytes"]),
                    opened[peer] + given[0]["first"],
                    errors.get(peer),
                )
            )
    return measurements, absent


def _logit_errors(ready: Mapping[str, Worker], size: int, folder: Path) -> dict[str, float]:
    """How much the logits of reduced precisions differ from those in float32, as a part of their range."""
    reduced = [peer for peer in ready if RUNTIMES[peer].reduced]
    references = {EXACT[peer.partition("-")[0]] for peer in reduced}
    logits = {}
    for peer in {*reduced, *references} & {*ready}:
        path = folder / f"{peer}.npy"
        ready[peer].ask("logits", size=size, path=str(path))
        logits[peer] = np.load(path)
    found = {}
    for peer in reduced:
        exact = logits.get(EXACT[peer.partition("-")[0]])
        if exact is not None:
            found[peer] = float(np.abs(logits[peer] - exact).max() / np.ptp(exact))
    return found


def ratios(measurements: Sequence[Measurement], batch: int, ours: str = OURS) -> dict[str, dict[str, float]]:
    """How many times as fast ours is as each other, by peer and network, and their geometric mean as "all"."""
    medians = {(each.peer, each.network): each.median for each in measurements if each.batch == batch}
    found: dict[str, dict[str, float]] = {}
    for (peer, network), seconds in medians.items():
        if peer != ours and (ours, network) in medians:
            found.setdefault(peer, {})[network] = seconds / medians[ours, network]
    return {peer: {**each, "all": statistics.geometric_mean(each.values())} for peer, each in found.items()}


def print_tables(console: Console, measurements: Sequence[Measurement]) -> None:
    """A table for each batch size and class of precision: images per second, and how many times as fast ours is."""
    networks = list(dict.fromkeys(each.network for each in measurements))
    for batch in dict.fromkeys(each.batch for each in measurements):
        for ours, reduced, precision in ((OURS, False, "float32"), (OURS_REDUCED, True, "reduced precision")):
            peers = [each.peer for each in measurements if RUNTIMES[each.peer].reduced == reduced]
            if not peers:
                continue
            table = Table(title=f"Batch {batch}, {precision}: images per second (times as fast {ours} is)")
            for heading in ("", *networks, "geometric mean"):
                table.add_column(heading, justify="right" if heading else "left")
            against = ratios(measurements, batch, ours)
            chosen = {(each.peer, each.network): each for each in measurements if each.batch == batch}
            for peer in dict.fromkeys(peers):
                factors = against.get(peer, {})
                cells = [
                    f"{batch / chosen[peer, network].median:.1f}"
                    + (f" ({factors[network]:.2f})" if network in factors else "")
                    if (peer, network) in chosen
                    else "absent"
                    for network in networks
                ]
                table.add_row(peer, *cells, f"{factors['all']:.2f}" if factors else "")
            console.print(table)


def print_costs(console: Console, measurements: Sequence[Measurement]) -> None:
    """Two tables: seconds to open and compile, and errors of the logits."""
    first = measurements[0].batch
    for title, attribute, form in (
        (f"Seconds to the first batch of {first}", "compile_seconds", "{:.1f}"),
        ("Largest change of a logit, part of their range", "error", "{:.1e}"),
    ):
        chosen = [each for each in measurements if each.batch == first and getattr(each, attribute) is not None]
        networks = list(dict.fromkeys(each.network for each in chosen))
        table = Table(title=title)
        for heading in ("", *networks):
            table.add_column(heading, justify="right" if heading else "left")
        cells = {(each.peer, each.network): form.format(getattr(each, attribute)) for each in chosen}
        for peer in dict.fromkeys(each.peer for each in chosen):
            table.add_row(peer, *(cells.get((peer, network), "") for network in networks))
        if chosen:
            console.print(table)


def machine() -> dict[str, Any]:
    """What the figures depend on, apart from versions."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": cores(),
        "system": platform.platform(terse=True),
        "load": load,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
    }


@contextmanager
def kept_or_temporary(folder: str | None) -> Iterator[str]:
    """A folder for exported networks."""
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        yield folder
    else:
        with tempfile.TemporaryDirectory() as temporary:
            yield temporary


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.inference", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--networks", nargs="+", choices=NETWORKS, default=CLASSIC, help="default: the five classic ones"
    )
    parser.add_argument("--peers", nargs="+", choices=RUNTIMES, default=list(RUNTIMES), help="default: all")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 32], help="default: 1 8 32")
    parser.add_argument("--repetitions", type=int, default=7, help="of each, after one that compiles (default: 7)")
    parser.add_argument("--size", type=int, help="of images, in place of each network's own")
    parser.add_argument("--python", action="append", default=[], metavar="PEER=PATH", help="interpreter of a runtime")
    parser.add_argument("--folder", help="keeps exported ONNX files (default: a temporary folder)")
    parser.add_argument("--json", metavar="FILE", help="where all times go")
    parser.add_argument("--chart", metavar="FILE.svg", help="where a chart of the ratios goes")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, prints, and writes what is asked for."""
    options = parse(argv)
    pythons = dict(each.split("=", 1) for each in options.python)
    console = Console()
    measurements: list[Measurement] = []
    with ExitStack() as stack:
        folder = stack.enter_context(kept_or_temporary(options.folder))
        workers, versions, absent = start_workers(stack, options.peers, pythons)
        report = {"machine": machine(), "versions": versions}
        for network in options.networks:
            size = options.size or SIZES[network]
            found, failed = measure_network(workers, network, size, options.batches, options.repetitions, folder)
            measurements += found
            absent |= failed
            console.print(f"[dim]{network} measured[/dim]")
            if options.json:  # what is measured is kept if the next network fails, or Ctrl-C is pressed
                write_report(options.json, report, measurements)
    print_tables(console, measurements)
    print_costs(console, measurements)
    for peer, reason in absent.items():
        console.print(f"absent: {peer} ({reason})", markup=False)
    for peer, found_versions in versions.items():
        console.print(f"{peer}: {', '.join(f'{name} {version}' for name, version in found_versions.items())}")
    console.print(", ".join(f"{key} {value}" for key, value in report["machine"].items()))
    report |= {"absent": absent}
    if options.json:
        write_report(options.json, report, measurements)
    if options.chart:
        from tests.benchmarks.chart import draw

        draw(report, options.chart)


def write_report(path: str, report: Mapping[str, Any], measurements: Sequence[Measurement]) -> None:
    """Writes all times as JSON."""
    content = {**report, "measurements": [each._asdict() for each in measurements]}
    Path(path).write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
