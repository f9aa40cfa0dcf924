"""The documentation: its code runs, the site builds without a warning, and nothing in it leads nowhere."""

import argparse
import html
import importlib
import json
import os
import re
import runpy
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest

from flaxapps import list_models, model_info
from flaxapps.cli.commands import new_flaxapps_parser
from flaxapps.registry import build_model
from tests.code_blocks import WITH_FILES, code_blocks
from tests.places import ROOT

DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS) for path in DOCS.rglob("*.md"))
CONTINUOUS = [path for path in PAGES if path.as_posix() not in WITH_FILES]


class Page(HTMLParser):
    """What of a page can be wrong: links, anchors, pictures, and what a browser fetches to show it."""

    def __init__(self, text: str):
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.fetched: list[str] = []
        self.unnamed: list[str] = []
        self._in_picture = False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if given.get("id"):
            self.anchors.add(given["id"])
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        if tag in ("img", "script", "iframe") and given.get("src"):
            self.fetched.append(given["src"])
            self.links.append(given["src"])
        if tag == "link" and given.get("rel") in ("stylesheet", "icon"):
            self.fetched.append(given["href"])
        if tag == "img" and not given.get("alt"):
            self.unnamed.append(str(given))
        if self._in_picture and tag != "title":
            self.unnamed.append("an svg that begins with no title")
        self._in_picture = tag == "svg" and given.get("role") == "img"


@pytest.mark.parametrize("path", CONTINUOUS, ids=str)
@pytest.mark.usefixtures("nothing_registered")
def test_code_runs(path, tmp_path, monkeypatch):
    """The blocks of a page go on from each other, as one reads them."""
    monkeypatch.chdir(tmp_path)
    names = {"__name__": str(path)}
    for heading, code in code_blocks((DOCS / path).read_text()):
        exec(compile(code, f"{path}, {heading}", "exec"), names)


def test_all_blocks_are_found():
    texts = [(DOCS / path).read_text() for path in PAGES]
    assert sum(len(list(code_blocks(text))) for text in texts) == sum(text.count("```python") for text in texts) >= 10


@pytest.mark.parametrize("path", [*PAGES, Path("../SCALING.md")], ids=str)
def test_code_fits_its_column(path):
    """A page is 88 characters wide where it shows code."""
    blocks = re.findall(r"^```(?:python|py|sh)\n(.*?)^```", (DOCS / path).read_text(), flags=re.M | re.S)
    assert [line for block in blocks for line in block.splitlines() if len(line) > 88] == []


def test_the_words_that_people_search_for_are_there():
    text = " ".join((DOCS / path).read_text() for path in PAGES).lower()
    words = ("transfer learning", "mixed precision", ".heic", "fine-tun", "feature extraction", "timm", "dataloader")
    assert [word for word in words if word not in text] == []


@pytest.mark.parametrize("path", PAGES, ids=str)
def test_what_is_named_exists(path):
    """`flaxapps.x`, `train.x` and `weight_port.x` in the text and in the tables."""
    prose = re.sub(r"^```.*?^```$", "", (DOCS / path).read_text(), flags=re.M | re.S)
    for package, names in re.findall(r"(?<![\w./])(flaxapps|train|weight_port)((?:\.[A-Za-z_]\w*)+)", prose):
        value = importlib.import_module({"train": "flaxapps.train"}.get(package, package))
        for name in names.strip(".").split("."):
            if not hasattr(value, name):
                importlib.import_module(f"{value.__name__}.{name}")
            value = getattr(value, name)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site, every HTML page of it read."""
    pytest.importorskip("mkdocs", reason="needs the extra `docs`")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return folder, {path: Page(path.read_text()) for path in folder.rglob("*.html")}


def test_pages_of_commands_can_be_made():
    pages = dict(runpy.run_path(str(ROOT / "docs" / "commands.py"))["pages"]())
    assert {"commands/index.md", "commands/options.md", "commands/predict.md"} <= set(pages)


@pytest.mark.slow
def test_no_link_is_broken(site):
    folder, pages = site
    broken = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or path.name == "404.html":
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            wanted = unquote(urldefrag(link).fragment)
            if not target.exists() or (wanted and target in pages and wanted not in pages[target].anchors):
                broken.append(f"{path.relative_to(folder)}: {link}")
    assert not broken


@pytest.mark.slow
def test_pictures_lead_to_layers(site):
    folder, pages = site
    for name in list_models():
        links = re.findall(r'href="([^"]*)"', (folder / "networks" / f"{name}.svg").read_text())
        layers = [layer.name for layer in build_model(name).layers]
        assert set(links) == {f"{name}/#layer-{layer}" for layer in layers}
        assert len(links) >= len(layers)
        page = folder / "networks" / name / "index.html"
        assert {f"layer-{layer}" for layer in layers} <= pages[page].anchors


@pytest.mark.slow
def test_every_picture_has_a_text_and_nothing_comes_from_elsewhere(site):
    _, pages = site
    for path, page in pages.items():
        assert not page.unnamed, path
        assert not [address for address in page.fetched if urlsplit(address).netloc], path
        assert page.anchors


@pytest.mark.slow
def test_notebooks_are_pages_with_their_pictures(site):
    folder, pages = site
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    assert len(notebooks) == 6
    for path in notebooks:
        outputs = [output for cell in json.loads(path.read_text())["cells"] for output in cell.get("outputs", [])]
        drawn = [output for output in outputs if {"image/png", "image/jpeg"} & set(output.get("data", {}))]
        shown = pages[folder / "notebooks" / path.stem / "index.html"].fetched
        pictures = [address for address in shown if path.stem in address]
        assert len(pictures) == len(drawn) > 0
        assert all((folder / "notebooks" / path.stem / address).resolve().is_file() for address in pictures)


@pytest.mark.parametrize(
    "text",
    ["<img src='a.png'>", "<img src='a.png' alt=''>", "<svg role='img'><g/></svg>"],
)
def test_a_picture_without_text_is_seen(text):
    assert Page(text).unnamed
    assert not Page('<img src="a.png" alt="A cup"><svg role="img"><title>A network</title></svg>').unnamed


@pytest.mark.slow
def test_pages_of_networks_say_what_the_registry_says(site):
    folder, _ = site
    for name in list_models():
        info, text = model_info(name), (folder / "networks" / name / "index.html").read_text()
        facts = [f"{info.parameters:,}", info.reference, info.function]
        facts += [f"{accuracy}%" for accuracy in (info.top1, info.top5) if accuracy]
        facts += [fact for file in info.weight_files for fact in (*file.hashes.values(), file.url, file.licence)]
        assert not [fact for fact in facts if fact not in text]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "module"),
    [("flaxapps", "flaxapps.api"), ("layers", "flaxapps.layers"), ("image", "flaxapps.image"),
     ("train", "flaxapps.train"), ("explain", "flaxapps.explain"), ("weight_port", "weight_port")],
)  # fmt: skip # kept on few lines on purpose
def test_the_reference_has_all_that_is_exported(site, page, module):
    folder, pages = site
    anchors = pages[folder / "reference" / page / "index.html"].anchors
    source = Path(importlib.import_module(module).__file__).read_text()
    exported = re.findall(r"^from \S+ import (\w+) as \1$|^(?:def|class) ([A-Za-z]\w*)", source, re.M)
    names = {one or other for one, other in exported} - {"image", "layers", "explain"}
    missing = [name for name in names if not name.isupper() and not any(a.endswith(f".{name}") for a in anchors)]
    assert len(names) > 2
    assert not missing


@pytest.mark.slow
def test_pages_of_commands_list_every_option(site):
    folder, _ = site
    parser = new_flaxapps_parser()
    (action,) = (each for each in parser._actions if hasattr(each, "choices") and isinstance(each.choices, dict))
    assert {"predict", "finetune", "inspect"} <= set(action.choices)
    for name, command in action.choices.items():
        text = html.unescape((folder / "commands" / name / "index.html").read_text())
        shown = [each for each in command._actions if each.help != argparse.SUPPRESS and each.dest != "help"]
        assert not [each.dest for each in shown if (each.option_strings or [each.metavar])[0] not in text], name
