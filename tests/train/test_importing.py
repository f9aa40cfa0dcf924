"""`flaxapps.train` is found whatever else is called `train`, and is there once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.places import ROOT

ONCE = """
import sys
from flaxapps import train
assert callable(train.fit)
import flaxapps.cli
names = [name for name in sys.modules if name.split(".")[0] == "train"]
assert not names, names
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(params=["a file", "a folder of photos", "a package"])
def folder(request, tmp_path: Path) -> Path:
    """A folder of a user's, who calls something of his own `train`."""
    if request.param == "a file":
        (tmp_path / "train.py").write_text("raise SystemExit('the train.py of a user')")
    else:
        (tmp_path / "train" / "cats").mkdir(parents=True)
    if request.param == "a package":
        (tmp_path / "train" / "__init__.py").write_text("raise SystemExit('the package of a user')")
    return tmp_path


def test_it_is_found_beside_what_users_call_train(folder):
    result = run(folder, "-c", ONCE)
    assert result.returncode == 0, result.stderr


def test_the_command_is_found_beside_what_users_call_train(folder):
    result = run(folder, "-m", "flaxapps", "finetune", "--help")
    assert result.returncode == 0, result.stderr
    assert "--freeze-until" in result.stdout


def test_in_a_checkout_the_old_name_says_what_to_write():
    result = run(ROOT, "-c", "import train")
    assert result.returncode == 1
    assert "write `from flaxapps import train` in place of `import train`" in result.stderr
    assert run(ROOT, "-c", ONCE).returncode == 0
