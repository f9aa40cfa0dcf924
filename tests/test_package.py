"""What holds for the distribution as a whole."""

import ast
import importlib.metadata
import itertools
import json
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest

from tests.places import ROOT

NEVER = {"keras", "tensorflow"}  # imported by name where a command needs it, never at the top
FORBIDDEN = {"weight_port": NEVER | {"jax", "flax"}, "flaxapps": NEVER, "train": NEVER}


def imported(path):
    """Top-level names of everything a file imports, at any depth of the code."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("package", FORBIDDEN)
def test_packages_do_without(package):
    for path in (ROOT / package).rglob("*.py"):
        assert not set(imported(path)) & FORBIDDEN[package], path


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("flaxapps", ["keras", "tensorflow", "matplotlib", "PIL", "orbax.checkpoint", "grain"]),
        ("weight_port", ["jax", "flax", "flaxapps", "keras", "rich"]),
        ("flaxapps.train", ["keras", "tensorflow", "matplotlib", "PIL", "grain", "dm_pix", "tensorboardX"]),
        ("flaxapps.train", ["orbax.checkpoint"]),
        ("flaxapps.cli", ["keras", "matplotlib", "PIL", "grain", "dm_pix", "orbax.checkpoint", "tensorboardX"]),
    ],
)
def test_importing_stays_light(module, absent):
    """Whatever `import flax` brings is there anyway; nothing heavy comes on top."""
    before = "import json, sys" if module == "weight_port" else "import flax, json, sys"
    code = f"{before}; known = {{*sys.modules}}; import {module}; print(json.dumps([*{{*sys.modules}} - known]))"
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT).stdout
    assert not set(absent) & set(json.loads(output))


def tracked_files():
    listing = subprocess.run(["git", "ls-files", "-z"], check=True, capture_output=True, text=True, cwd=ROOT).stdout
    return [ROOT / name for name in listing.split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="an unpacked archive has no list of tracked files")
def test_nothing_large_and_no_path_of_a_machine_is_committed():
    for path in tracked_files():
        assert path.stat().st_size < 1 << 20, path
        if path.suffix in {".py", ".md", ".toml", ".json", ""}:
            assert "/wo" + "rk/" not in path.read_text(), path


def test_editors_find_an_editable_install():
    """It is a path; of the import hook that setuptools takes otherwise, pyright knows nothing."""
    installed = Path(sysconfig.get_path("purelib"))
    (distribution,) = importlib.metadata.distributions(name="flaxapps", path=[str(installed)])
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    if not origin.get("dir_info", {}).get("editable"):
        pytest.skip("an installed wheel is found by everything")
    folder = url2pathname(urlsplit(origin["url"]).path)
    paths = [path.read_text().splitlines() for path in installed.glob("*.pth")]
    assert folder in itertools.chain(*paths)


def test_oldest_versions_are_those_of_the_project():
    """What .ci/run tests with has the lower bound of every dependency that is not for tests or docs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["demo"], *extras["train"], *extras["export"]]
    bounds = dict(each.split(">=") for each in wanted if ">=" in each)
    lines = (ROOT / ".ci" / "oldest.txt").read_text().splitlines()
    oldest = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert oldest.keys() == bounds.keys()
    for name, version in oldest.items():
        assert version in (bounds[name], f"{bounds[name]}.0"), name
