"""Runs every command of an installed wheel in a folder whose files have names like ours.

There is a program train.py, a folder train/ of photos, and a keras.json that asks for channels_first. Commands whose
extras are not installed are left out.
"""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import flaxapps
from flaxapps import Input, Model, layers

assert "site-packages" in flaxapps.__file__, flaxapps.__file__


def prepare(folder: Path) -> None:
    """Writes the files."""
    (folder / "train.py").write_text('raise SystemExit("train.py of the user was imported")\n')
    (folder / "photos.py").write_text('raise SystemExit("photos.py of the user was imported")\n')
    (folder / "keras").mkdir()
    (folder / "keras" / "keras.json").write_text(
        json.dumps({"image_data_format": "channels_first", "backend": "torch"})
    )
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / "train" / name).mkdir(parents=True)
        for number in range(8):
            photo = Image.fromarray(random.integers(0, 256, (16, 16, 3), np.uint8))
            photo.save(folder / "train" / name / f"{number}.png")
    (folder / "names.txt").write_text("cat\ndog\n")
    image = Input((16, 16, 3), data_format="channels_last")
    x = layers.Conv2D(16, 3, activation="relu", name="top")(layers.Conv2D(16, 3, activation="relu")(image))
    x = layers.Dense(2, activation="softmax")(layers.GlobalAveragePooling2D()(x))
    model = Model(image, x)
    flaxapps.save_model(model, model.init_variables(), folder / "mine.keras")


def commands() -> list[str]:
    """Returns the commands that can run here."""
    given = "--model mine.keras --preprocess tf --labels names.txt"
    found = [
        "--version", "list", "info vgg16", "summary mine.keras", "summary vgg16", "plot mine.keras --output plot.svg",
        f"predict train {given}", f"predict train {given} --format csv --output-folder out",
        f"evaluate train {given}", "inspect mine.keras", "convert mine.keras mine.weights.h5",
        "diff mine.keras mine.weights.h5 --model mine.keras",
        "quantize mine.keras train --preprocess tf --output int8.npz", "predict train --model int8.npz",
    ]  # fmt: skip # kept on few lines on purpose
    if importlib.util.find_spec("grain"):
        found += [
            "finetune train --model mine.keras --features top --head 0 --preprocess tf --epochs 1 --output train_out"
        ]
        found += ["predict train --model train_out", "evaluate train --model train_out"]
    if importlib.util.find_spec("flatbuffers"):
        found += ["export mine.keras --output mine.stablehlo"]
    if importlib.util.find_spec("keras"):
        found += ["verify mine.keras"]
    return found


with tempfile.TemporaryDirectory() as place:
    prepare(Path(place))
    environment = os.environ | {"KERAS_HOME": f"{place}/keras"}
    for command in commands():
        # With `python -m`, the folder comes first on the path.
        run = [sys.executable, "-m", "flaxapps", *command.split()]
        done = subprocess.run(run, cwd=place, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"flaxapps {command}\n{done.stdout}{done.stderr}"
    print(f"{len(commands())} commands of the wheel")
