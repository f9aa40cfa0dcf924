"""Everything that can go wrong, made to go wrong, and what came of it: `python -m tests.faults`."""

import argparse
import sys
import time

from rich.console import Console
from rich.table import Table

from tests.faults.report import SECTIONS, Row, section_rows


def shown(outcomes: dict[str, int]) -> str:
    """Such as "48 right file, 2 clear error"."""
    return ", ".join(f"{times:,} {outcome}" for outcome, times in outcomes.items())


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--section", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="only these")
    parser.add_argument("--count", type=int, metavar="N", help="nothing more than N times (default: as often as asked)")
    options = parser.parse_args(arguments)
    console, wrong = Console(), []
    for name in options.section:
        start, found = time.monotonic(), list[Row]()
        with console.status(f"{name} ...") as status:  # shown on terminals only
            for row in section_rows(name, options.count):
                found.append(row)
                wrong += row.wrong
                status.update(f"{name} ... {row.tried}")
        seconds = time.monotonic() - start
        table = Table("tried", "times", "outcome", title=f"{name}: {SECTIONS[name]} ({seconds:.0f} s)")
        for row in found:
            table.add_row(row.tried, f"{row.times:,}", shown(row.outcomes), style="red" if row.wrong else "")
        console.print(table)
    for line in wrong:
        console.print(f"WRONG: {line}", style="red", markup=False)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
