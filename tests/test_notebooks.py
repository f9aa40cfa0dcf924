"""The notebooks run from scratch, and what is committed of their outputs is whole, small and of no machine."""

import os
import re
import warnings

import pytest

from flaxapps.demo.photos import fetch_demo
from tests.places import DEMO, ROOT

nbformat = pytest.importorskip("nbformat", reason="needs the extra `notebooks`")

FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
NAMES = ["01_classify", "02_features", "03_finetune", "04_functional", "05_batch_and_export", "06_tpu"]
PICTURES = {"image/png", "image/jpeg"}
ABSOLUTE_PATH = re.compile(r"(?<![\w.])(?:/(?:root|home|Users|tmp|var|work|usr|opt|mnt|content)/|[A-Z]:\\)")


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def texts(cell):
    """Everything that a cell shows but its pictures."""
    for output in cell.outputs:
        yield output.get("text", "")
        yield from (str(data) for kind, data in output.get("data", {}).items() if kind not in PICTURES)


def test_all_are_here():
    assert [path.stem for path in NOTEBOOKS] == NAMES


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_outputs(path):
    notebook = read(path)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))  # from scratch, in order
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert any(PICTURES & set(output.get("data", {})) for output in outputs)
    assert any(output.output_type == "stream" for output in outputs)
    found = [text for cell in cells for text in texts(cell) if ABSOLUTE_PATH.search(text)]
    assert not found
    assert path.stat().st_size < 700 * 1024


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_lead_somewhere(path):
    prose = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    links = [link for link in re.findall(r"\]\(([^)#]+)", prose) if "://" not in link]
    assert not [link for link in links if not (FOLDER / link).exists()]


def test_a_path_of_a_machine_is_found():
    assert ABSOLUTE_PATH.search("saved to /home/someone/x.png")
    assert ABSOLUTE_PATH.search("(/tmp/abc/file)")
    assert not ABSOLUTE_PATH.search("https://example.org/home/page and 3/tmp/x")


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_from_scratch(path, monkeypatch):
    """Every cell in a fresh kernel; what a cell shows is of the kinds that are committed."""
    pytest.importorskip("nbclient", reason="needs the extra `notebooks`")
    monkeypatch.setenv("KERAS_HOME", str(DEMO))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(FOLDER.parent), os.environ.get("PYTHONPATH")])))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Jupyter's own: cells run in the kernel's process, where none is caught
        from notebooks.execute import execute

        fetch_demo()  # or the first notebook would show a download
        executed = execute(path)
    for cell, known in zip(code_cells(executed), code_cells(read(path)), strict=True):
        assert kinds(cell) == kinds(known), cell.source


def kinds(cell):
    found = {kind for output in cell.outputs for kind in output.get("data", {output.get("name"): ""})}
    return found - {"stderr"}  # notices of another machine, such as of a cache that is built once
