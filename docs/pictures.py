"""Draws the README's picture: `python docs/pictures.py` writes docs/pictures/photos.jpg.

Real photos and the real model of `flaxapps demo`: what each is taken for, and which part of it speaks for that.
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from flaxapps import explain, image, load_model, predict
from flaxapps.demo import CLASSES, fetch_demo

PICTURE = Path(__file__).parent / "pictures" / "photos.jpg"
SHOWN = ("0009", "0013", "0026", "0207", "0403", "0412")  # labelled ones, each kind there is
SIZE = (150, 150)  # pixels, what the model takes


def draw() -> Figure:
    """Six photos with what they are taken for, and below each where the network looks."""
    data = fetch_demo()
    model, variables = load_model(data.model)
    paths = [path for path in data.photos if path.stem in SHOWN]
    pixels = np.stack([image.img_to_array(image.load_img(path, target_size=SIZE)) for path in paths])
    logits = predict(model, variables, pixels, preprocess=True)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    heat = explain.grad_cam(model, variables, pixels / 127.5 - 1, "xception", size=SIZE)

    figure = Figure(figsize=(10, 3.7), dpi=110, layout="constrained")
    columns = figure.subplots(2, len(paths)).T
    for (above, below), path, row, where in zip(columns, paths, probabilities, heat, strict=True):
        photo = image.load_img(path, target_size=(300, 300), interpolation="box")
        above.imshow(photo)
        above.set_title(f"{CLASSES[row.argmax()]} {row.max():.1%}", fontsize=11)
        below.imshow(photo.convert("L"), cmap="gray", extent=(0, 1, 0, 1))
        below.imshow(where, cmap="inferno", alpha=0.55, extent=(0, 1, 0, 1))
        for axes in (above, below):
            axes.set_axis_off()
    return figure


if __name__ == "__main__":
    PICTURE.parent.mkdir(exist_ok=True)
    draw().savefig(PICTURE, pil_kwargs={"quality": 85})
