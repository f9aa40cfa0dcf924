"""The models that commands are given, and whether they classify photos."""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from flaxapps.importing import load_architecture
from flaxapps.inference import known_preprocessing
from flaxapps.model import Model
from flaxapps.network import load_variables
from flaxapps.paths import as_path, local_file
from flaxapps.photos import PhotoFormat, photo_format
from flaxapps.recipe import Recipe, read_recipe
from flaxapps.registry import build_model, get_model, list_models, model_info
from flaxapps.reports import read_labels


def settle_recipe(arguments: argparse.Namespace) -> Recipe:
    """What is known of the model that a command is given, with what the command's options say in its place.

    Args:
        arguments: With the options of `add_model` and `add_reading`.

    Raises:
        ValueError: A folder has no recipe, or one that cannot be understood; or --labels is no file of names.
        OSError: A file cannot be read.
    """
    recipe = read_recipe(arguments.model)
    return recipe._replace(
        class_names=read_labels(arguments.labels) if arguments.labels else recipe.class_names,
        preprocess=recipe.preprocess if arguments.preprocess == "auto" else arguments.preprocess,
        interpolation=arguments.interpolation or recipe.interpolation,
    )


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
    return model, lambda: load_variables(weights or name, model)


def open_file(name: str) -> Model:
    """Rebuilds a Keras model whose name did not turn out to be a network's.

    Raises:
        ValueError: There is no such file either, or it cannot be loaded.
    """
    if not as_path(name).exists():
        raise ValueError(f"{name!r} is neither a network ({', '.join(list_models())}) nor a file")
    return load_architecture(local_file(name))


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
