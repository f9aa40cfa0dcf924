"""A hook of MkDocs: the notebooks, with the outputs that are committed, as pages of the site.

They are read as they are; nothing is run. Every picture has a text in its place: the one its cell gives, or else the
heading it stands below.
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
    """Adds a page for every notebook, and its pictures."""
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        for name, content in pages(path):
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    return files


def pages(path: Path) -> Iterator[tuple[str, str | bytes]]:
    """The pictures of a notebook and its page: their names and contents."""
    lines: list[str] = []
    heading = path.stem
    for number, cell in enumerate(json.loads(path.read_text())["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            lines += [source.replace(".ipynb)", ".md)"), ""]
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
    """The text in place of a picture."""
    given: str = output.get("metadata", {}).get(kind, {}).get("alt", "")
    return given or f"Picture: {heading.replace('`', '')}"
