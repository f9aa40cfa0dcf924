"""What every section of the fault suite gives: rows that say what was tried, how often, and what became of it."""

import collections
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

# A section is a module here with a function `rows(count: int | None) -> Iterator[Row]`. `count` is the largest number
# of repetitions of anything; None means what the issue asks for.
SECTIONS = {
    "downloads": "weight files from a server that misbehaves",
    "caches": "the folder of weight files: shared, full, read-only, obstructed",
    "training": "runs that are killed, ended, or out of disk",
    "resuming": "checkpoints that are broken, data that has changed, numbers that are none",
    "attacks": "model files made to do harm",
    "dialects": "files of old versions of Keras: configurations, attributes and bytes changed",
    "images": "photos that are damaged, odd or hostile, through `flaxapps predict`",
    "files": "damaged weight and model files, each read by a process of its own",
    "enduring": "half an hour of predictions, thousands of models loaded: memory and open files",
}


@dataclass(frozen=True)
class Row:
    """One kind of fault.

    Attributes:
        tried: What was done.
        outcomes: How often what became of it, such as `{"right file": 50}`.
        wrong: What should not have happened, a line each: which of the tries, and what it led to.
    """

    tried: str
    outcomes: dict[str, int]
    wrong: tuple[str, ...] = ()

    @property
    def times(self) -> int:
        """How often it was tried."""
        return sum(self.outcomes.values())


def section_rows(name: str, count: int | None) -> Iterator[Row]:
    """The rows of a section, each as soon as it is known; the section is imported only here."""
    yield from importlib.import_module(f"tests.faults.{name}").rows(count)


def at_most(times: int, count: int | None) -> int:
    """How often something is done that the issue wants done `times` times."""
    return times if count is None else min(times, count)


def tally(tried: str, tries: Iterator[tuple[object, str]] | list[tuple[object, str]], wanted: set[str]) -> Row:
    """The row of many tries, each given as what it was and its outcome; outcomes that are not wanted are wrong."""
    outcomes: collections.Counter[str] = collections.Counter()
    wrong = []
    for label, outcome in tries:
        outcomes[outcome if outcome in wanted else "wrong"] += 1
        if outcome not in wanted:
            wrong.append(f"{tried} ({label}): {outcome}")
    return Row(tried, dict(outcomes), tuple(wrong))


def outcome_of(call: Callable[[], str], errors: type[Exception] | tuple[type[Exception], ...], says: str) -> str:
    """What a call gives, or "clear error" if it raises one of `errors` whose text contains `says`."""
    try:
        return call()
    except errors as error:
        return "clear error" if says in str(error) else f"an error without {says!r}: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
