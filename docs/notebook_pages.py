"""MkDocs hook: generate pages from the notebooks with their committed outputs.

Notebooks are not run. The alternative text of a picture is that of the output, or else the heading above it.
"""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
SUFFIXES = {"image/png": "png", "image/jpeg": "jpg"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds a page and the pictures of every notebook."""
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        for name, content in pages(path):
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    return files


def pages(path: Path) -> Iterator[tuple[str, str | bytes]]:
    """Yields the names and contents of the pictures and the page of a notebook."""
    lines: list[str] = []
    heading = path.stem
    for number, cell in enumerate(json.loads(path.read_text())["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            source = source.replace(".ipynb)", ".md)").replace("](../docs/", "](../")  # as links of the site
            lines += [source.replace("](../SCALING.md)", "](../scaling.md)"), ""]
            headings = [line.lstrip("# ") for line in source.splitlines() if line.startswith("#")]
            heading = headings[-1] if headings else heading
            continue
        lines += ["```py", source, "```", ""]
        for output in cell["outputs"]:
            kind = next(filter(SUFFIXES.get, output.get("data", {})), None)
            if kind is None:
                text = "".join(output.get("text") or output["data"]["text/plain"])
                lines += ["```text", text.rstrip(), "```", ""]
                continue
            name = f"{path.stem}-{number}.{SUFFIXES[kind]}"
            yield name, base64.b64decode("".join(output["data"][kind]))
            lines += [f"![{alternative(output, kind, heading)}]({name})", ""]
    yield f"{path.stem}.md", "\n".join(lines)


def alternative(output: dict[str, Any], kind: str, heading: str) -> str:
    """Returns the alternative text of a picture."""
    given: str = output.get("metadata", {}).get(kind, {}).get("alt", "")
    return given or f"Picture: {heading.replace('`', '')}"
