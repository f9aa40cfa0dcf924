"""Rows of a command's output as CSV or JSON; tables are formatted by each command."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Any


def write_rows(
    stream: IO[str], form: str, rows: Iterable[Mapping[str, Any]], columns: Sequence[str] | None = None
) -> None:
    """Writes rows of equal keys.

    Args:
        stream: Output.
        form: "csv", with a line of the keys, "json" (a list of objects) or "jsonl" (an object in each line).
        rows: The rows; values are text, numbers or None.
        columns: Their keys, for a CSV file without rows; None takes those of the first row.
    """
    listed = [dict(row) for row in rows]
    if form == "csv":
        writer = csv.DictWriter(stream, columns or (list(listed[0]) if listed else []), lineterminator="\n")
        writer.writeheader()
        writer.writerows(listed)
    elif form == "json":
        stream.write(json.dumps(listed, indent=1) + "\n")
    else:
        stream.writelines(json.dumps(row) + "\n" for row in listed)
