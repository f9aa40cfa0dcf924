"""Memory of networks here and in other runtimes: `python -m tests.benchmarks.memory`.

For every runtime and mode one process stores the network, optimized or quantized, in a file. Another opens the file and
predicts one photo, then a batch. Its largest resident size is read after each.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from tests.benchmarks.inference import Worker, kept_or_temporary, machine
from tests.benchmarks.networks import CLASSIC, NETWORKS, SIZES
from tests.benchmarks.stored import STORED, bytes_of, path_of

MEGABYTE = 1e6


class Memory(NamedTuple):
    """The memory of one network in one runtime, in bytes.

    Attributes:
        network: Its name.
        peer: The runtime and mode.
        stored: The file.
        one: Peak resident size of a process that opened it and predicted one photo.
        batch: The same, after a batch as well.
    """

    network: str
    peer: str
    stored: int
    one: int
    batch: int


def measure(network: str, peer: str, python: str, size: int, batch: int, folder: str) -> Memory:
    """Stores a network where no earlier run did, and opens it in another process.

    Raises:
        RuntimeError: A process failed; the message is its error.
    """
    path = path_of(peer, network, size, folder)
    what = {"network": network, "size": size, "path": str(path)}
    with ExitStack() as stack:
        if not path.is_file():
            writer = Worker(peer, python)
            stack.callback(writer.close)
            writer.ask("store", **what)
    with ExitStack() as stack:
        reader = Worker(peer, python)
        stack.callback(reader.close)
        reader.ask("load", **what)
        one, many = (int(reader.ask("run", batch=count, size=size)["peak_bytes"]) for count in (1, batch))
    return Memory(network, peer, bytes_of(path), one, many)


def print_tables(console: Console, found: Sequence[Memory], batch: int) -> None:
    """A table for each figure, in MB."""
    networks = list(dict.fromkeys(each.network for each in found))
    cells = {(each.peer, each.network): each for each in found}
    titles = {"stored": "Stored", "one": "Peak, one photo", "batch": f"Peak, then a batch of {batch}"}
    for attribute, title in titles.items():
        table = Table(title=f"{title}, MB")
        for heading in ("", *networks):
            table.add_column(heading, justify="right" if heading else "left")
        for peer in dict.fromkeys(each.peer for each in found):
            row = [cells.get((peer, network)) for network in networks]
            table.add_row(peer, *(f"{getattr(each, attribute) / MEGABYTE:,.0f}" if each else "absent" for each in row))
        console.print(table)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.memory", description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=CLASSIC, help="default: the classic ones")
    parser.add_argument("--peers", nargs="+", choices=STORED, default=list(STORED), help="default: all")
    parser.add_argument("--batch", type=int, default=8, help="images in the batch (default: 8)")
    parser.add_argument("--size", type=int, help="of images, in place of each network's own")
    parser.add_argument("--python", action="append", default=[], metavar="PEER=PATH", help="interpreter of a runtime")
    parser.add_argument("--folder", help="keeps the stored networks (default: a temporary folder)")
    parser.add_argument("--json", metavar="FILE", help="where all figures go")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, prints, and writes what is asked for."""
    options = parse(argv)
    pythons: Mapping[str, str] = dict(each.split("=", 1) for each in options.python)
    console, found, absent = Console(), [], {}
    with kept_or_temporary(options.folder) as folder:
        for network in options.networks:
            for peer in options.peers:
                python, size = pythons.get(peer, sys.executable), options.size or SIZES[network]
                try:
                    found.append(measure(network, peer, python, size, options.batch, folder))
                except (OSError, RuntimeError) as error:
                    absent[f"{peer} on {network}"] = str(error)
                if options.json:  # what is measured is kept if the next fails, or Ctrl-C is pressed
                    report = {"machine": machine(), "absent": absent, "memory": [each._asdict() for each in found]}
                    Path(options.json).write_text(json.dumps(report, indent=1) + "\n")
    print_tables(console, found, options.batch)
    for peer, reason in absent.items():
        console.print(f"absent: {peer} ({reason})", markup=False)


if __name__ == "__main__":
    main()
