"""Worker processes of Grain: scripts that would start themselves anew, and what is left of workers after an error."""

import os
import subprocess
import sys
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from flaxapps import train
from tests.places import ROOT

SCRIPT = """
import jax

jax.config.update("jax_platforms", "cpu")
import optax
from flaxapps import train
from tests.train.small import small_model

def fail(event):
    raise KeyError("of a callback")

def main():
    model = small_model()
    photos = train.image_folder("photos", image_size=8, workers=2, class_names=[*"abcd"])
    options = {"optimizer": optax.sgd(0.1), "batch_size": 4, "verbose": False}
    train.fit(model, model.init_variables(), photos, callbacks=fail, **options)

"""
MAINS = {
    "plain": "main()",
    "guard elsewhere": "if __name__ == '__main__':\n    print('here')\nmain()",
    "guarded": "if __name__ == '__main__':\n    try:\n        main()\n    except KeyError as error:\n"
    "        kept = error\n        import os\n"
    "        print([name for name in os.listdir('/dev/shm') if 'psm' in name])",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("data")
    for name in "abcd":
        (place / "photos" / name).mkdir(parents=True)
        for number in range(6):
            Image.fromarray(np.full((8, 8, 3), 40 * number, np.uint8)).save(place / "photos" / name / f"{number}.png")
    return place


@pytest.mark.parametrize("kind", ["plain", "guard elsewhere", "guarded"])
def test_a_script_without_a_guard_is_refused_before_it_starts_itself(kind, folder, monkeypatch):
    script = folder / "script.py"
    script.write_text(MAINS[kind])
    main = ModuleType("__main__")
    main.__file__ = str(script)
    monkeypatch.setitem(sys.modules, "__main__", main)
    photos = train.image_folder(folder / "photos", image_size=8, workers=2)
    if kind == "plain":
        with pytest.raises(RuntimeError, match=r"workers=2 start.*script.py from its start. Put .* `if __name__ == "):
            photos.batches(4, seed=0)
    else:
        photos.batches(4, seed=0)  # starts none before it is read


@pytest.mark.slow
@pytest.mark.parametrize("kind", MAINS)
def test_workers_in_a_script(kind, folder):
    (folder / "script.py").write_text(SCRIPT + MAINS[kind])
    done = subprocess.run(
        [sys.executable, "script.py"], capture_output=True, text=True, check=False,
        cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip # kept on few lines on purpose
    if kind == "guarded":  # the error is kept, and the workers and their memory are gone
        assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "[]", "")
    else:
        assert done.returncode == 1
        assert done.stderr.count("Traceback") == 1, done.stderr
        assert 'below a line `if __name__ == "__main__":`' in done.stderr
