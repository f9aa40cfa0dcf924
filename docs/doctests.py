"""Griffe extension: show doctests in docstrings as code blocks."""

import re
from typing import Any

import griffe


class Doctests(griffe.Extension):
    """Puts a code fence around every doctest, because Markdown reads `>>>` as nested quotes."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrites the docstring of an object."""
        if obj.docstring:
            obj.docstring.value = re.sub(
                r"^( *)>>> (?:.*\n?)(?:.*\S.*\n?)*", fence, obj.docstring.value, flags=re.MULTILINE
            )


def fence(match: re.Match[str]) -> str:
    """Formats one doctest, up to the next empty line, as a code block."""
    indent = match[1]
    return f"{indent}```pycon\n{match[0].rstrip()}\n{indent}```\n"
