"""Resolve the options that choose a model: its variables, photo format, preprocessing and class names."""

import argparse
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from flaxapps.applications.application import build_lazily
from flaxapps.inference.preprocessing import known_preprocessing
from flaxapps.model import Model, load_variables
from flaxapps.photos.class_names import load_class_names, read_labels, save_class_names
from flaxapps.photos.photo import CHOSEN_RESIZING, PhotoFormat, Resizing
from flaxapps.photos.reading import photo_format
from flaxapps.registry import find_info, get_application, list_models, model_info, suggestion
from flaxapps.runtime.files import as_path, local_file, replacing
from flaxapps.saving.graph_file import is_graph_file, load_graph, load_settings
from flaxapps.saving.load import load_architecture
from flaxapps.transforms.cut import cut_at
from flaxapps.transforms.dtype import with_dtype
from flaxapps.transforms.logits import with_softmax
from weight_port.readers import is_json

MODEL_FILE = "model.keras"  # of a folder whose recipe names none, as those of earlier versions
RECIPE_FILE = "recipe.json"


class Recipe(NamedTuple):
    """Settings for predicting with a model, saved beside a fine-tuned one.

    Attributes:
        model: A network or a file, as --model takes them.
        class_names: Names of the outputs, in their order; None if unknown.
        preprocess: "caffe", "tf", "torch", "rescale" or "none"; "auto" derives it from the model.
        resizing: How photos get their size.
    """

    model: str
    class_names: Sequence[str] | None = None
    preprocess: str = "auto"
    resizing: Resizing = Resizing()

    @property
    def kept_resizing(self) -> dict[str, Any]:
        """The fields of `resizing` that are stored with a model."""
        return {name: getattr(self.resizing, name) for name in CHOSEN_RESIZING}


def read_recipe(model: str | os.PathLike[str]) -> Recipe:
    """Reads the recipe of a folder of `flaxapps finetune` or a file of `flaxapps quantize`, or returns the default one.

    Raises:
        ValueError: `model` is a folder without a valid recipe, or a damaged file of `flaxapps quantize`.
    """
    folder = as_path(model)
    if not folder.is_dir():
        if not (folder.exists() and is_graph_file(local_file(model))):
            return Recipe(os.fspath(model))
        settings = load_settings(local_file(model))
        known = {name: settings[name] for name in ("class_names", "preprocess") if settings.get(name) is not None}
        resizing = Resizing()._replace(**{name: settings[name] for name in CHOSEN_RESIZING if name in settings})
        return Recipe(os.fspath(model), resizing=resizing, **known)
    file = folder / RECIPE_FILE
    if not file.exists():
        raise ValueError(f"{folder} is not the output of a finished `flaxapps finetune`: it has no {RECIPE_FILE}")
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
        # Folders without the other two were written when photos were averaged and taken as they are stored.
        resizing = Resizing(entries["interpolation"], entries.get("antialias", True), entries.get("orientation", False))
        name, preprocess = entries.get("model", MODEL_FILE), entries["preprocess"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is not a valid recipe: {type(error).__name__}: {error}") from error
    return Recipe(str(folder / name), load_class_names(folder), preprocess, resizing)


def stored_model(path: str) -> str:
    """Returns the file of the model in a folder of `flaxapps finetune`; any other path as it is.

    Raises:
        ValueError: The folder has no valid recipe.
    """
    return read_recipe(path).model if (as_path(path) / RECIPE_FILE).exists() else path


def write_recipe(folder: str | os.PathLike[str], recipe: Recipe) -> None:
    """Writes the recipe of a model in `folder`, whose file name it has. RECIPE_FILE marks a finished run."""
    save_class_names(folder, recipe.class_names or ())
    with replacing(as_path(folder) / RECIPE_FILE) as stream:
        entries = {"model": recipe.model, "preprocess": recipe.preprocess, **recipe.kept_resizing}
        stream.write(json.dumps(entries, indent=1) + "\n")


@dataclass(frozen=True, eq=False)
class ResolvedModel:
    """The model that the options of a command choose. Nothing is downloaded before `load()`.

    The properties raise a ValueError if the options do not fit the model, so that a command asks for what it needs
    before it loads.

    Attributes:
        model: The network, without arrays.
        load: Loads its variables.
        name: Name of the network, or path of its file.
        weights: Path of the weights; None for the published or stored ones.
        size: Height and width of photos, in pixels; None for the model's own.
        class_names: Names of the outputs, in their order; None if unknown.
        resizing: How photos get their size.
        preprocess_option: "auto", or as in `Recipe`.
    """

    model: Model
    load: Callable[[], Mapping[str, Any]]
    name: str
    weights: str | None
    size: Sequence[int] | None
    class_names: Sequence[str] | None
    resizing: Resizing
    preprocess_option: str

    @property
    def photo_format(self) -> PhotoFormat:
        """The photo format; a free size is that of --size, else the network's default.

        Raises:
            ValueError: The model does not take photos, its size is another one, or it takes any size and none is given.
        """
        model, form = self.model, photo_format(self.model)
        info = find_info(model.name)
        default = info.default_size if info else None
        height, width = self.size or (form.height or default, form.width or default)
        if height is None or width is None:
            raise ValueError(f"{model.name!r} takes photos of any size: choose one with --size HEIGHT WIDTH")
        if form.height not in (None, height) or form.width not in (None, width):
            raise ValueError(f"{model.name!r} takes photos of {form.height} x {form.width}, got {height} x {width}")
        return form._replace(height=height, width=width)

    @property
    def classes(self) -> int:
        """Number of classes.

        Raises:
            ValueError: The model is not a classifier, or does not have as many classes as there are names.
        """
        shape = self.model.output_shape
        if not isinstance(shape, tuple) or len(shape) != 2:
            raise ValueError(f"{self.model.name!r} is not a classifier: expected output (batch, classes), got {shape}")
        if self.class_names is not None and len(self.class_names) != shape[1]:
            names = len(self.class_names)
            raise ValueError(f"There are {names} labels for the {shape[1]} classes of {self.model.name!r}")
        return int(shape[1])

    @property
    def preprocess(self) -> str | Literal[False]:
        """The mode of preprocessing, or False for none, as for `predict`.

        Raises:
            ValueError: It is to be that of the published network which the model is or contains, and there is not one.
        """
        modes = known_preprocessing(self.model) if self.preprocess_option == "auto" else {self.preprocess_option}
        if len(modes) != 1:
            raise ValueError(
                f"The preprocessing of {self.model.name!r} is not known: "
                "give --preprocess caffe, tf, torch, rescale (division by 255) or none"
            )
        (mode,) = modes
        return mode != "none" and mode

    @property
    def identity(self) -> str:
        """An identifier of the model and its weights: the name, or the SHA-256 of the files."""
        named = self.name in list_models()
        if named and not self.weights:
            return f"{self.name} with its published weights"
        files = [file for file in ("" if named else self.name, self.weights) if file]
        sums = []
        for file in files:
            with open(local_file(file), "rb") as stream:
                sums.append(hashlib.file_digest(stream, "sha256").hexdigest())
        return " with weights ".join([self.name, *sums] if named else sums)


def resolve_model(
    name: str,
    *,
    weights: str | None = None,
    size: Sequence[int] | None = None,
    labels: str | None = None,
    preprocess: str = "auto",
    resizing: Mapping[str, Any] = MappingProxyType({}),
    initialize: bool = False,
    seed: int = 0,
    **network: Any,
) -> ResolvedModel:
    """Resolves the options that choose a model. They override what a folder of `flaxapps finetune` says.

    Args:
        name: A network, the path of a Keras model, or a folder of `flaxapps finetune`.
        weights: The path of a file of weights to use in place of the published or stored ones.
        size: Height and width of photos.
        labels: The path of a file of class names.
        preprocess: "auto", or as in `Recipe`.
        resizing: Fields of `Resizing` in place of the defaults.
        initialize: Whether `load` initializes the variables.
        seed: Seed for this.
        **network: Further arguments of the network's function; files ignore them.

    Raises:
        ValueError: There is no such model, it cannot be loaded, or `labels` is not a file of names.
        OSError: A file cannot be read.
    """
    recipe = read_recipe(name)
    name = recipe.model
    load: Callable[[], Mapping[str, Any]]
    if name in list_models():
        application = get_application(name)
        # Photos are decoded channels last, whatever keras.json says.
        network = {"data_format": "channels_last", "weights": None if initialize else weights or "imagenet", **network}
        model, load = build_lazily(application, seed=seed, **network)
    elif as_path(name).exists() and is_graph_file(local_file(name)):
        if weights is not None:
            raise ValueError(f"{name} holds the weights of its network: leave out --weights")
        stored = load_graph(local_file(name)).network
        model = stored.model
        load = partial(model.init_variables, seed) if initialize else lambda: stored.variables
    else:
        model = open_file(name, weights)
        load = partial(model.init_variables, seed) if initialize else partial(_load_file, name, weights, model)
    return ResolvedModel(
        model,
        load,
        name,
        weights,
        size,
        class_names=read_labels(labels) if labels else recipe.class_names,
        resizing=recipe.resizing._replace(**resizing),
        preprocess_option=recipe.preprocess if preprocess == "auto" else preprocess,
    )


def adapted(model: Model, arguments: argparse.Namespace) -> Model:
    """Returns the model as --layer, --softmax and --dtype change it; those that a command has not change nothing.

    Raises:
        ValueError: There is no such layer, or `dtype` is not a floating-point dtype.
    """
    if layer := getattr(arguments, "layer", None):
        model = cut_at(model, layer)
    if getattr(arguments, "softmax", False):
        model = with_softmax(model)
    return with_dtype(model, arguments.dtype) if arguments.dtype else model


def open_file(name: str, weights: str | None = None) -> Model:
    """Rebuilds the model of a file of Keras or of our own format, without its weights.

    Raises:
        ValueError: There is no such file, or it cannot be loaded.
    """
    if not as_path(name).exists():
        raise ValueError(f"{name!r} is neither a network of `flaxapps list` nor a file.{suggestion(name)}")
    if is_graph_file(local_file(name)):
        return load_graph(local_file(name)).network.model
    return load_architecture(local_file(name), weights=weights)


def _load_file(name: str, weights: str | None, model: Model) -> Mapping[str, Any]:
    if weights is None and is_json(local_file(name)):
        raise ValueError(f"{name} holds a model without weights: give their file with --weights FILE")
    return load_variables(weights or name, model)


def architecture_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Converts --no-top and --input-shape to arguments of a network's function; empty for a file.

    Raises:
        ValueError: The model is a file, and options for networks are given.
    """
    if arguments.model in list_models():
        info = model_info(arguments.model)
        # The classifier of some takes any size, but programs and their costs are those of one size.
        default = [info.default_size] * 2 if info.any_size and not arguments.no_top else None
        size = arguments.input_shape or default
        shape = (*size, 3) if size else None
        return {"include_top": not arguments.no_top, "input_shape": shape}
    if arguments.no_top or arguments.input_shape:
        raise ValueError("--no-top and --input-shape apply to the networks of `flaxapps list` only, not to files")
    return {}
