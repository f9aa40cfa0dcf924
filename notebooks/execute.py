"""Runs the notebooks from scratch: `python notebooks/execute.py [NAME.ipynb ...]` writes their outputs into them.

What a run leaves beside the outputs (times of cells, versions) is dropped, so that a change of the file is a change of
what it shows. It needs the extra `notebooks`.
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent
SECONDS = 600  # for one cell; far above what any takes, so that a hung kernel ends


def execute(path: Path) -> nbformat.NotebookNode:
    """The notebook with the outputs of a fresh kernel.

    Args:
        path: The notebook; it stays as it is.

    Returns:
        Its cells, with new outputs and without those that were there.

    Raises:
        nbclient.exceptions.CellExecutionError: A cell failed.
    """
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook, timeout=SECONDS, kernel_name="python3", record_timing=False
    ).execute(cwd=str(path.parent))
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        cell.metadata.clear()
    return notebook


def main(names: list[str]) -> None:
    """Executes the named notebooks, or all, and replaces them."""
    for path in [FOLDER / name for name in names] or sorted(FOLDER.glob("*.ipynb")):
        notebook = execute(path)
        nbformat.write(notebook, path)
        print(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main(sys.argv[1:])
