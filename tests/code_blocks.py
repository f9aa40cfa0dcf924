"""The Python code in Markdown."""

import re
from collections.abc import Iterator

# Pages of docs/ whose blocks want weight files or photos: tests/test_readme.py has both, and runs each block by itself.
WITH_FILES = ("examples.md", "guides/photos.md", "guides/serving.md")


def code_blocks(text: str) -> Iterator[tuple[str, str]]:
    """The blocks that are run (```python; not ```py), each under the heading it stands below."""
    heading = ""
    for part in re.split(r"^(#+ [^\n]*|```python\n.*?^```)$", text, flags=re.M | re.S):
        if part.startswith("#"):
            heading = part.lstrip("# ")
        elif part.startswith("```python"):
            yield heading, part.removeprefix("```python").removesuffix("```")
