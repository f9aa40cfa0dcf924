"""Draw the picture of the README: `python docs/pictures.py` writes docs/pictures/photos.jpg.

It shows photos of `flaxapps demo` with the predictions of its model and their Grad-CAM heat maps.
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from flaxapps import explain, image, load_model, predict
from flaxapps.demo.photos import CLASSES, fetch_demo

PICTURE = Path(__file__).parent / "pictures" / "photos.jpg"
SHOWN = ("0009", "0013", "0026", "0207", "0403", "0412")  # labelled photos, all classes among them
SIZE = (150, 150)  # input size of the model in pixels


def draw() -> Figure:
    """Draws six photos with their predicted classes, and below each its Grad-CAM heat map."""
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
