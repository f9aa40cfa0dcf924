"""`flaxapps predict`: from photos to named classes."""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import weight_port
from flaxapps.compilation import estimate_costs
from flaxapps.importing import load_architecture
from flaxapps.inference import known_preprocessing, predict
from flaxapps.model import Model
from flaxapps.network import on_device
from flaxapps.optimizing import Mode, optimize
from flaxapps.photos import PhotoFormat, find_photos, photo_format, read_photos
from flaxapps.precision import with_dtype
from flaxapps.recipe import read_recipe
from flaxapps.registry import build_model, get_model, list_models, model_info
from flaxapps.reports import (
    describe_error,
    name_predictions,
    open_progress,
    read_labels,
    replacing,
    write_costs,
    write_predictions,
)

MANY_PHOTOS = 64  # for fewer, compiling the fast form takes longer than it saves


def classify_photos(arguments: argparse.Namespace) -> int:
    """Predicts what is on photos and prints or writes it.

    Args:
        arguments: Those of the command, as `flaxapps predict --help` says.

    Returns:
        1 where photos could not be read, else 0.

    Raises:
        ValueError: The model does not classify photos, or the arguments do not fit it.
        OSError: A file is not there, or cannot be read or written.
    """
    paths = find_photos(arguments.images)
    recipe = read_recipe(arguments.model)
    labels = read_labels(arguments.labels) if arguments.labels else recipe.class_names
    with ExitStack() as stack:
        output = stack.enter_context(replacing(arguments.output)) if arguments.output else sys.stdout
        model, load = open_model(recipe.model, arguments.weights)
        model = with_dtype(model, arguments.dtype) if arguments.dtype else model
        form = settle_format(model, arguments.size)
        check_classes(model, labels)
        option = recipe.preprocess if arguments.preprocess == "auto" else arguments.preprocess
        preprocess = chosen_preprocessing(model, option)
        mode: Mode = "exact" if arguments.exact or len(paths) < MANY_PHOTOS else "fast"
        model, variables = optimize(model, load(), mode)
        if arguments.describe:
            dtype = "float32" if form.channels == 1 else "uint8"  # as photos are read
            given: dict[str, Any] = {"dtype": dtype, "preprocess": preprocess, "variables": variables}
            costs = estimate_costs(model, arguments.batch_size, form.shape, **given)
            write_costs(sys.stderr, costs, arguments.batch_size)
        read: list[Path] = []
        progress = stack.enter_context(open_progress())
        task = progress.add_task("Predicting", total=len(paths))

        def complain(path: Path, error: Exception) -> None:
            progress.console.print(f"flaxapps: cannot read {describe_error(error)}")
            progress.advance(task)

        def batches() -> Iterator[Any]:
            interpolation = arguments.interpolation or recipe.interpolation or "nearest"
            options = {
                "interpolation": interpolation,
                "draft": arguments.draft,
                "batch_size": arguments.batch_size,
            }
            for files, photos in read_photos(paths, form, unreadable=complain, **options):
                read.extend(files)
                yield photos
                progress.advance(task, len(files))

        options: dict[str, Any] = {"batch_size": arguments.batch_size, "preprocess": preprocess, "optimize": None}
        scores = predict(model, variables, batches(), **options)
        progress.stop()
        write_predictions(output, arguments.format, read, name_predictions(scores, labels, arguments.top))
    failed = len(paths) - len(read)
    if failed:
        print(f"flaxapps: {failed} of {len(paths)} images could not be read", file=sys.stderr)
    return 1 if failed else 0


def open_model(name: str, weights: str | None, **options: Any) -> tuple[Model, Callable[[], Any]]:
    """A model and what loads its variables: a download should not begin before everything else is known to fit.

    Args:
        name: A network, or the path of a Keras model.
        weights: The path of a file of weights to use in place of the published or stored ones.
        **options: Arguments of the network's function; a file takes none.

    Raises:
        ValueError: There is no such model, or it cannot be loaded.
    """
    if name in list_models():
        # Photos come channels last from their files, whatever keras.json says.
        arguments = {"weights": weights or "imagenet", "data_format": "channels_last", **options}
        return build_model(name, **arguments), lambda: get_model(name, **arguments).variables
    model = open_file(name)
    return model, lambda: on_device(weight_port.load_weights(weights or name, model))


def open_file(name: str) -> Model:
    """Rebuilds a Keras model whose name did not turn out to be a network's.

    Raises:
        ValueError: There is no such file either, or it cannot be loaded.
    """
    if not os.path.exists(name):
        raise ValueError(f"{name!r} is neither a network ({', '.join(list_models())}) nor a file")
    return load_architecture(name)


def settle_format(model: Model, size: Sequence[int] | None) -> PhotoFormat:
    """The photos a model takes; a free size is settled by --size, or by what the network of this name is used to.

    Raises:
        ValueError: It takes no photos, or others than `size` (height, width), or any and none was given.
    """
    form = photo_format(model)
    default = model_info(model.name).default_size if model.name in list_models() else None
    height, width = size or (form.height or default, form.width or default)
    if height is None or width is None:
        raise ValueError(f"{model.name!r} takes photos of any size: give one with --size HEIGHT WIDTH")
    if form.height not in (None, height) or form.width not in (None, width):
        raise ValueError(f"{model.name!r} takes photos of {form.height} x {form.width}, got {height} x {width}")
    return form._replace(height=height, width=width)


def check_classes(model: Model, labels: Sequence[str] | None) -> int:
    """How many classes a model tells apart.

    Raises:
        ValueError: None, or another number than there are `labels`.
    """
    shape = model.output_shape
    if not isinstance(shape, tuple) or len(shape) != 2:
        raise ValueError(f"{model.name!r} does not give scores for classes: its output is {shape}")
    if labels is not None and len(labels) != shape[1]:
        raise ValueError(f"There are {len(labels)} labels for the {shape[1]} classes of {model.name!r}")
    return int(shape[1])


def chosen_preprocessing(model: Model, option: str) -> bool | str:
    """What --preprocess means for `predict`.

    Raises:
        ValueError: It is "auto" and the model does not tell.
    """
    if option == "auto" and len(known_preprocessing(model)) != 1:
        raise ValueError(
            f"{model.name!r} is and holds no network whose preprocessing is known: "
            "give --preprocess caffe, tf, torch or none"
        )
    return {"auto": True, "none": False}.get(option, option)
