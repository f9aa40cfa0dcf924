"""The README's code runs as it stands, its commands are CI's, and its tables say what the registry says.

Pages of the documentation whose code wants weights or photos run here too.
"""

import dataclasses
import hashlib
import os
import re
import shutil
import tomllib

import h5py
import numpy as np
import pytest

import flaxapps
from tests.code_blocks import WITH_FILES, code_blocks
from tests.networks import keras_layers
from tests.places import ROOT
from tests.recipe import CLASSIC
from weight_port import published

README = (ROOT / "README.md").read_text()


PAGES = [README, *((ROOT / "docs" / page).read_text() for page in WITH_FILES)]
EXAMPLES = [block for page in PAGES for block in code_blocks(page)]


def write_weights(path, name, include_top):
    """A weight file of the official name and layout, with random arrays."""
    random = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        rows = keras_layers(name, include_top)
        file.attrs["layer_names"] = [name.encode() for name, *_ in rows]
        for layer, _, _, weights in rows:
            group = file.create_group(layer)
            group.attrs["weight_names"] = [name.encode() for name, _ in weights]
            for name, shape in weights:
                values = random.standard_normal(shape, np.float32) * np.float32(0.02)
                group[name] = np.abs(values) + 1 if "variance" in name else values


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    """A folder of weight files, and the table that knows their hashes."""
    folder = tmp_path_factory.mktemp("mirror")
    needed = {("resnet50", True), ("vgg16", False), ("vgg19", False), ("inception_v3", False), ("inception_v3", True)}
    files = []
    for file in published.PUBLISHED_FILES:
        if file.variant == "" and (file.network, file.include_top) in needed:
            path = folder / file.filename
            write_weights(path, file.network, file.include_top)
            with path.open("rb") as stream:
                files.append(dataclasses.replace(file, md5=hashlib.file_digest(stream, "md5").hexdigest()))
    yield folder, tuple(files)
    for path in folder.iterdir():
        path.unlink()


@pytest.mark.slow
@pytest.mark.parametrize(("title", "code"), EXAMPLES, ids=[title for title, _ in EXAMPLES])
def test_code_runs(title, code, mirror, tmp_path, monkeypatch):
    folder, files = mirror
    monkeypatch.setenv("FLAXAPPS_MIRROR", str(folder))
    monkeypatch.setattr(published, "PUBLISHED_FILES", files)
    monkeypatch.chdir(tmp_path)
    flaxapps.image.save_img("elephant.jpg", np.random.default_rng(1).uniform(0, 255, (300, 400, 3)))
    for name in ("cat", "dog"):
        os.makedirs(f"photos/{name}")
        for number in range(5):
            shutil.copy("elephant.jpg", f"photos/{name}/{number}.jpg")
    exec(compile(code, title, "exec"), {"__name__": title})


def test_all_examples_are_found():
    assert len(EXAMPLES) == sum(page.count("```python") for page in PAGES)
    assert sum("imagenet" in code for _, code in EXAMPLES) >= 7


def test_links_and_pictures_of_the_readme():
    """What is linked is in the repository, at a heading that is there, and every picture has a text in its place."""
    links = re.findall(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)", README)
    assert any(mark for mark, *_ in links)
    for mark, text, link in links:
        path, _, heading = link.partition("#")
        if "://" in link:
            continue
        assert (ROOT / path).exists(), link
        assert text or not mark, f"{link} has no alternative text"
        headings = re.findall(r"^#+ (.*)$", (ROOT / path).read_text(), re.M) if heading else []
        assert not heading or heading in [name.lower().replace(" ", "-") for name in headings], link
    assert "<img" not in README
    assert all(path.stat().st_size < 200 * 1024 for path in (ROOT / "docs" / "pictures").iterdir())


def test_quickstart_is_two_commands():
    commands = re.findall(r"^python3 -m venv .*$", README, re.M)
    assert commands == [
        'python3 -m venv .venv && .venv/bin/pip install -e ".[demo]" && .venv/bin/flaxapps demo',
        'python3 -m venv .venv && .venv/bin/pip install -e ".[test]" && .venv/bin/pytest',
    ]


@pytest.mark.parametrize("name", CLASSIC)
def test_table_of_networks(name):
    info = flaxapps.model_info(name)
    row = next(line for line in README.splitlines() if f"| `{info.function}` |" in line)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[2:7] == [
        f"{info.top1}%", f"{info.top5}%", f"{info.parameters / 1e6:.1f}M", str(info.default_size), str(info.min_size)
    ]  # fmt: skip # kept on few lines on purpose
    assert abs(int(cells[1]) - info.weight_files[0].size / 2**20) < 1  # Keras rounds up or down as it likes
    assert all(file.licence.split(" (")[0] in cells[7] for file in info.weight_files)
    assert info.reference in cells[8]


def test_one_screen():
    assert len(README.splitlines()) <= 130
    programs = [code for _, code in code_blocks(README)]
    assert len(programs) == 3  # one for each kind of user
    assert all(len(code.strip().splitlines()) <= 14 for code in programs)


def test_badges_and_extras_are_those_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bounds = dict(each.split(">=") for each in project["dependencies"])
    badges = dict(re.findall(r"badge/([a-z]+)-(\S+?)-blue", README))
    assert badges["licence"] == project["license"]
    assert badges["python"] == f"{project['requires-python'].removeprefix('>=')}+"
    assert badges["jax"] == f"{bounds['jax']}+"
    extras = project["optional-dependencies"]
    texts = [README, (ROOT / "docs" / "install.md").read_text()]
    groups = [group for text in texts for group in re.findall(r"(?:\.|flaxapps|whl)\[([a-z0-9,]+)\]", text)]
    named = {name for group in groups for name in group.split(",")}
    assert {"train", "demo", "test", "tpu"} <= named
    assert named <= set(extras)
    for name in ("tpu", "cuda12", "cuda13"):
        assert extras[name] == [f"jax[{name}]"]  # pins nothing


def test_the_networks_are_counted():
    smallest, *_, largest = sorted(map(flaxapps.model_info, flaxapps.list_models()), key=lambda info: info.parameters)
    assert len(flaxapps.list_models()) == 40
    assert f"from {smallest.function} (2.6M parameters) to {largest.function} (350M)" in README
    assert (round(smallest.parameters / 1e6, 1), round(largest.parameters / 1e6)) == (2.6, 350)
