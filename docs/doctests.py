"""An extension of Griffe, which reads the docstrings: doctests are shown as code, wherever they stand."""

import re
from typing import Any

import griffe


class Doctests(griffe.Extension):
    """Puts a fence around every doctest, as Markdown takes `>>>` for three quotations in each other."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Changes the docstring of whatever has been read."""
        if obj.docstring:
            obj.docstring.value = re.sub(
                r"^( *)>>> (?:.*\n?)(?:.*\S.*\n?)*", fence, obj.docstring.value, flags=re.MULTILINE
            )


def fence(match: re.Match[str]) -> str:
    """One doctest, up to the next empty line, as a block of code."""
    indent = match[1]
    return f"{indent}```pycon\n{match[0].rstrip()}\n{indent}```\n"
