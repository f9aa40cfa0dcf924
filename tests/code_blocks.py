"""The Python code in Markdown."""

import re
from collections.abc import Iterator


def code_blocks(text: str) -> Iterator[tuple[str, str]]:
    """The blocks that are run (```python; not ```py), each under the heading it stands below."""
    heading = ""
    for part in re.split(r"^(#+ [^\n]*|```python\n.*?^```)$", text, flags=re.M | re.S):
        if part.startswith("#"):
            heading = part.lstrip("# ")
        elif part.startswith("```python"):
            yield heading, part.removeprefix("```python").removesuffix("```")
