"""Pictures of a training run: learning curves, the confusion matrix, mistakes and a range test of the rate."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from flaxapps.runtime.files import replacing

TRAINING, VALIDATION, GREY = "#0072b2", "#d55e00", "#666666"  # distinguishable with colour blindness
COUNTS_SHOWN = 20  # most classes for which cells show their counts
NAMES_SHOWN = 60  # most classes for which the axes show names
NAME_LENGTH = 24
MISTAKES_IN_A_ROW = 6


def write_curves(phases: Mapping[str, Mapping[str, Sequence[Any]]], path: str | os.PathLike[str]) -> None:
    """Plots loss and accuracy over the epochs to a PNG file.

    Args:
        phases: The history of every phase, by its title; the epochs of all phases are joined.
        path: The file.

    Raises:
        OSError: The file cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    phases = {title: history for title, history in phases.items() if len(history.get("loss", ()))}
    figure = Figure(figsize=(11, 4.2), dpi=120, layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for key, label, colour in ((name, "training", TRAINING), (f"val_{name}", "validation", VALIDATION)):
            values = [value for history in phases.values() for value in history.get(key, ())]
            if not values:
                continue
            marker = "o" if len(values) <= 40 else None
            label += f" {values[-1]:.1%}" if name == "accuracy" else f" {values[-1]:.3g}"
            axes.plot(range(1, len(values) + 1), values, color=colour, marker=marker, markersize=4, label=label)
        epochs = [len(history["loss"]) for history in phases.values()]
        for end, title in zip(np.cumsum([0, *epochs]), phases, strict=False):
            if end:
                axes.axvline(end + 0.5, color=GREY, linewidth=1, linestyle=":")
            axes.text(end + 0.6, 1.02, title, transform=axes.get_xaxis_transform(), color=GREY, fontsize=9)
        axes.set(xlabel="epoch", ylabel=name, xlim=(0.5, sum(epochs) + 0.5))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if name == "accuracy":
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, loc="lower right" if name == "accuracy" else "upper right")
    _save(figure, path)


def write_confusion(counts: ArrayLike, names: Sequence[str], path: str | os.PathLike[str], title: str) -> None:
    """Plots a confusion matrix to a PNG file. Rows are normalized; counts are printed if there is room.

    Args:
        counts: (classes, classes), examples by true class (row) and predicted class (column).
        names: Class names.
        path: The file.
        title: Title of the plot; the accuracy is added to it.

    Raises:
        OSError: The file cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    matrix = np.asarray(counts, np.int64)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    classes = len(matrix)
    side = float(np.clip(2.5 + 0.36 * classes, 4.5, 14))
    figure = Figure(figsize=(side + 1, side), dpi=120, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, shrink=0.7, format=PercentFormatter(1), label="share of the class")
    if classes <= COUNTS_SHOWN:
        for (row, column), count in np.ndenumerate(matrix):
            if count:
                colour = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=8)
    if classes <= NAMES_SHOWN:
        short = [name if len(name) <= NAME_LENGTH else name[: NAME_LENGTH - 1] + "…" for name in names]
        turned = max(map(len, short), default=0) > 2
        axes.set_xticks(range(classes), short, rotation=45 if turned else 0, ha="right" if turned else "center")
        axes.set_yticks(range(classes), short)
        axes.tick_params(labelsize=8 if classes <= COUNTS_SHOWN else 6, length=0)
    axes.set(xlabel="taken for", ylabel="class")
    right, total = int(matrix.trace()), int(matrix.sum())
    axes.set_title(f"{title}: {right} of {total} right" + (f" ({right / total:.1%})" if total else ""), fontsize=10)
    _save(figure, path)


def write_mistakes(
    photos: Sequence[ArrayLike], titles: Sequence[str], path: str | os.PathLike[str], title: str
) -> None:
    """Draws photos in rows, each under its title, to a PNG file.

    Args:
        photos: (height, width, channels) each, from 0 to 255; 1, 3 or 4 channels.
        titles: A title for each, of one or more lines.
        path: The file.
        title: Title of the sheet.

    Raises:
        OSError: The file cannot be written.
    """
    from matplotlib.figure import Figure

    rows = -(-len(photos) // MISTAKES_IN_A_ROW)
    figure = Figure(figsize=(2.1 * MISTAKES_IN_A_ROW, 2.6 * rows + 0.5), dpi=100, layout="constrained")
    figure.suptitle(title, fontsize=11)
    places = figure.subplots(rows, MISTAKES_IN_A_ROW, squeeze=False).flat
    for axes in places:
        axes.set_axis_off()
    for axes, photo, text in zip(figure.axes, photos, titles, strict=False):
        image = np.asarray(photo, np.float32).clip(0, 255) / 255
        axes.imshow(image[..., 0] if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=1)
        axes.set_title(text, fontsize=8)
    _save(figure, path)


def write_range_test(
    rates: Sequence[float],
    losses: Sequence[float],
    smoothed: Sequence[float],
    suggested: float,
    path: str | os.PathLike[str],
) -> None:
    """Plots the loss over the learning rate to a PNG file.

    Args:
        rates: Learning rate of every step.
        losses: Loss of every step.
        smoothed: Running mean of the losses.
        suggested: The rate to mark.
        path: The file.

    Raises:
        OSError: The file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.plot(rates, losses, color=GREY, linewidth=0.8, alpha=0.6, label="loss")
    axes.plot(rates, smoothed, color=TRAINING, label="running mean")
    axes.axvline(suggested, color=VALIDATION, linestyle=":", label=f"suggested: {suggested:.1g}")
    top = max(smoothed) + 0.1 * (max(smoothed) - min(smoothed))
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss", ylim=(None, top) if top > min(losses) else None)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    _save(figure, path)


def _save(figure: Any, path: str | os.PathLike[str]) -> None:
    with replacing(path, "wb") as stream:
        figure.savefig(stream, format="png")
