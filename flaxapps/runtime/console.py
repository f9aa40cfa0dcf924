"""Console output: tables, progress bars and error messages."""

import os
import sys
from collections import Counter
from collections.abc import Sequence
from types import MappingProxyType
from typing import IO

import jax
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from flaxapps.runtime.distributed import is_first
from weight_port import WeightError

ENTRIES_SHOWN = 10  # in each list of an error about weights
WIDTH_OF_FILES = 140  # columns
# Device files of an accelerator, and the extra of jax that brings what it needs.
ACCELERATORS = MappingProxyType({"/dev/nvidia0": "cuda12", "/dev/accel0": "tpu", "/dev/vfio/0": "tpu"})


def open_console(stream: IO[str] | None = None, width: int | None = None) -> Console:
    """Opens a rich console without markup. Only the first of several processes prints.

    Args:
        stream: Output; None takes stdout.
        width: Columns; None takes those of the terminal, or WIDTH_OF_FILES.
    """
    stream = stream or sys.stdout
    # Rich assumes 80 columns for files and pipes unless given a width.
    width = width or (None if stream.isatty() else WIDTH_OF_FILES)
    return Console(file=stream, width=width, markup=False, emoji=False, highlight=False, quiet=not is_first())


def new_table(caption: str | None = None) -> Table:
    """Creates an empty table in the style that all commands share."""
    return Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), caption=caption, caption_justify="left")


def printable(text: str) -> str:
    """Escapes control characters: names from untrusted files could otherwise control the terminal."""
    return "".join(
        each if each.isprintable() or each == "\n" else each.encode("unicode_escape").decode() for each in text
    )


def listed(entries: Sequence[str], separator: str = ", ", limit: int = ENTRIES_SHOWN) -> str:
    """Joins the first entries of a list, and says how many more there are.

    >>> listed(["a", "b", "c"], limit=2)
    'a, b and 1 more'
    """
    more = f" and {len(entries) - limit} more" if len(entries) > limit else ""
    return separator.join(entries[:limit]) + more


def describe_error(error: Exception) -> str:
    """Describes an error in one line, or in several for weights that do not fit."""
    if isinstance(error, WeightError):
        lines = [error.message]
        for heading in ("missing", "unexpected", "misshapen"):
            entries = getattr(error, heading)
            lines += [f"{heading} ({len(entries)}):"] if entries else []
            lines += [f"  {entry}" for entry in entries[:ENTRIES_SHOWN]]
            lines += [f"  and {len(entries) - ENTRIES_SHOWN} more"] if len(entries) > ENTRIES_SHOWN else []
        return "\n".join(lines)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    message = " ".join(str(error).split())
    if not isinstance(error, ValueError | OSError | ImportError):
        message = f"unexpected {type(error).__name__}: {message} (--debug shows where it comes from)"
    # Grain notes that it has shortened the traceback, which is not shown here.
    return " ".join([message, *(note for note in getattr(error, "__notes__", []) if "Grain" not in note)])


def describe_devices() -> str:
    """Describes the devices that JAX uses, and says if an accelerator lies idle.

    A hint is given where the machine has a GPU or TPU but jaxlib was installed without its plugin.
    """
    counts = Counter(device.device_kind for device in jax.devices())
    found = ", ".join(f"{count} x {kind}" for kind, count in counts.items())
    hint = ""
    if jax.default_backend() == "cpu":
        extra = next((extra for place, extra in ACCELERATORS.items() if os.path.exists(place)), None)
        hint = f'; this machine has an accelerator that JAX cannot use: pip install -U "jax[{extra}]"' if extra else ""
    return f"Running on {found} (jax {jax.__version__}){hint}"
