"""From the arguments of `flaxapps finetune` to what they ask for; all that is wrong in them is told at once."""

import argparse
import functools
import json
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any, NamedTuple

from flaxapps.classification import chosen_preprocessing, open_file, settle_format
from flaxapps.distributed import SETTINGS
from flaxapps.inference import known_preprocessing
from flaxapps.model import Model
from flaxapps.network import load_variables
from flaxapps.paths import as_path
from flaxapps.recipe import read_recipe
from flaxapps.registry import build_model, get_model, list_models, model_info
from flaxapps.reports import describe_error
from train.augment import Augmentation
from train.checkpoints import checkpoint_folder
from train.folders import image_folder
from train.heads import feature_node, frozen_until, put_head
from train.images import ImageDataset
from train.masks import frozen_layers
from train.tables import image_table

ARGUMENTS_FILE = "arguments.json"
NOT_SETTINGS = (
    "run",
    "debug",
    "resume",
    "output",
    "workers",
    "describe",
    "mesh",
    "shard_optimizer",
    *SETTINGS,
)  # arguments that do not change what comes out
DEFAULT_RATES = (1e-3, 1e-4)  # of RMSprop for the head and of SGD for the top, as Keras documents the recipe


class Phase(NamedTuple):
    """One phase of the training.

    Attributes:
        name: Of its folder: "head" or "top".
        title: For people.
        frozen: Layers that stand still.
        epochs: How many.
        learning_rate: Of RMSprop for the head, of SGD for the top.
    """

    name: str
    title: str
    frozen: frozenset[str]
    epochs: int
    learning_rate: float


class Plan(NamedTuple):
    """What the arguments come to; nothing was downloaded for it and no array was made.

    Attributes:
        model: The network with its new head.
        load: Loads or makes its variables.
        phases: One or two.
        data: The photos to train on.
        validation: Those to validate on.
        preprocess: "caffe", "tf", "torch" or "none".
        augmentation: What is done to the photos in training.
    """

    model: Model
    load: Callable[[], Mapping[str, Any]]
    phases: tuple[Phase, ...]
    data: ImageDataset
    validation: ImageDataset | None
    preprocess: str
    augmentation: Augmentation | None

    @property
    def preprocessing(self) -> bool | str:
        """The same as `fit` and `evaluate` take it."""
        return chosen_preprocessing(self.model, self.preprocess)


def settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The arguments that make a run what it is; a resumed run has to have the same."""
    return {name: value for name, value in vars(arguments).items() if name not in NOT_SETTINGS}


class Problems:
    """Collects what is wrong, so that all of it can be told at once."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def attempt(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What the function returns, or None where it raises or an argument is None for that reason."""
        if any(argument is None for argument in arguments):
            return None
        try:
            return function(*arguments)
        except (ValueError, OSError, ImportError) as error:
            self.found.append(describe_error(error))
            return None


def make_plan(arguments: argparse.Namespace) -> Plan:
    """Checks the arguments, and the names, sizes and classes of the photos.

    Raises:
        ValueError: Something is wrong; all of it is told.
    """
    problems = Problems()
    for check in (_check_packages, _check_output, _check_numbers):
        problems.attempt(check, arguments)
    recipe = problems.attempt(read_recipe, arguments.model)
    base = recipe and problems.attempt(_base, recipe.model, arguments)
    form = problems.attempt(lambda base: settle_format(base, arguments.image_size), base)
    option = arguments.preprocess if arguments.preprocess != "auto" else recipe.preprocess if recipe else None
    preprocess = problems.attempt(_preprocess, base, option)
    reading: dict[str, Any] = {
        "image_size": (form.height, form.width) if form else (1, 1),
        "color_mode": {1: "grayscale", 4: "rgba"}.get(form.channels, "rgb") if form else "rgb",
        "interpolation": arguments.interpolation,
        "on_error": arguments.on_error,
        "workers": arguments.workers,
        "seed": arguments.seed,
    }
    data = problems.attempt(_photos, arguments, reading)
    validation = data and problems.attempt(_validation_photos, arguments, reading, data)
    augmentation = problems.attempt(_augmentation, arguments)
    extended = problems.attempt(lambda base, data: _extend(base, len(data.class_names), arguments), base, data)
    if problems.found:
        raise ValueError("; ".join(problems.found))
    model, phases = extended
    load = functools.partial(_load, model, base, recipe.model, arguments)
    return Plan(model, load, phases, data, validation, preprocess, augmentation)


def _check_packages(arguments: argparse.Namespace) -> None:
    needed = ["grain", "matplotlib"] + (["tensorboardX"] if arguments.tensorboard else [])
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise ValueError(f"{', '.join(missing)} is not installed: pip install 'flaxapps[train]'")


def _check_output(arguments: argparse.Namespace) -> None:
    file = checkpoint_folder(arguments.output) / ARGUMENTS_FILE
    if not file.is_file():
        return
    if not arguments.resume:
        raise ValueError(f"{arguments.output} holds a run already: --resume goes on with it, or give another folder")
    before, now = json.loads(file.read_text(encoding="utf-8")), json.loads(json.dumps(settings(arguments)))
    changed = [f"{name} was {before.get(name)}, is {now[name]}" for name in now if before.get(name) != now[name]]
    if changed:
        raise ValueError(f"The run in {arguments.output} had other arguments: {', '.join(changed)}")


def _check_numbers(arguments: argparse.Namespace) -> None:
    wrong = []
    if len(arguments.epochs) > 2 or len(arguments.learning_rate) > 2:
        wrong.append("--epochs and --learning-rate take a number for each of the two phases")
    if not any(arguments.epochs):
        wrong.append("--epochs asks for no epoch at all")
    if arguments.freeze_until is None and any(arguments.epochs[1:]):
        wrong.append("a second phase needs --freeze-until LAYER or INDEX; --epochs N is the first alone")
    if not 0 <= arguments.validation_split < 1 or not 0 <= arguments.dropout < 1:
        wrong.append("--validation-split and --dropout are shares, from 0 to below 1")
    if any(rate <= 0 for rate in arguments.learning_rate):
        wrong.append("--learning-rate is above 0")
    if arguments.patience and not arguments.validation and not arguments.validation_split:
        wrong.append("--patience watches the validation: give --validation or --validation-split")
    if arguments.weights not in (None, "imagenet", "none") and not as_path(arguments.weights).is_file():
        wrong.append(f"--weights: there is no file {arguments.weights}")
    if wrong:
        raise ValueError("; ".join(wrong))


def _base(name: str, arguments: argparse.Namespace) -> Model:
    """The network without its classifier, or the model of a file as it is; no arrays."""
    if name not in list_models():
        if arguments.dtype or arguments.weights == "imagenet":
            raise ValueError("--dtype and --weights imagenet are for the networks of `flaxapps list`, not for files")
        return open_file(name)
    return build_model(name, **_network_arguments(name, arguments) | {"weights": None})


def _network_arguments(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    size = arguments.image_size or [model_info(name).default_size] * 2
    weights = None if arguments.weights == "none" else arguments.weights or "imagenet"
    # Photos come channels last from their files, whatever keras.json says.
    options = {"include_top": False, "data_format": "channels_last", "dtype": arguments.dtype}
    return options | {"input_shape": (*size, 3), "weights": weights}


def _preprocess(base: Model, option: str) -> str:
    chosen_preprocessing(base, option)  # raises where nobody knows
    return known_preprocessing(base).pop() if option == "auto" else option


def _photos(arguments: argparse.Namespace, reading: dict[str, Any]) -> ImageDataset:
    split = arguments.validation_split if not arguments.validation else 0
    options = {"validation_split": split, "subset": "training"} if split else {}
    return _read(arguments.data, **reading, **options)


def _validation_photos(arguments: argparse.Namespace, reading: dict[str, Any], data: ImageDataset) -> Any:
    if arguments.validation:
        return _read(arguments.validation, **reading, class_names=data.class_names)
    if not arguments.validation_split:
        return None
    return _read(arguments.data, **reading, validation_split=arguments.validation_split, subset="validation")


def _read(place: str, **options: Any) -> ImageDataset:
    return (image_table if as_path(place).is_file() else image_folder)(place, **options)


def _augmentation(arguments: argparse.Namespace) -> Augmentation | None:
    options: dict[str, Any] = {"flip": arguments.flip} if arguments.flip else {}
    options |= {"crop": (arguments.random_crop, 1.0)} if arguments.random_crop else {}
    options |= {"brightness": arguments.brightness} if arguments.brightness else {}
    options |= {"contrast": arguments.contrast} if arguments.contrast else {}
    return Augmentation(**options) if options else None


def _extend(base: Model, classes: int, arguments: argparse.Namespace) -> tuple[Model, tuple[Phase, ...]]:
    features = feature_node(base, arguments.features)
    model = put_head(features, base.input, classes, arguments.head, dropout=arguments.dropout, name=base.name)
    trunk = Model(base.input, features)
    until = arguments.freeze_until
    epochs = (*arguments.epochs, arguments.epochs[0] if until is not None else 0)[:2]
    rates = (*arguments.learning_rate, DEFAULT_RATES[1])[:2]
    phases = []
    if epochs[0]:
        frozen = frozen_layers(model, names=[layer.name for layer in trunk.layers])
        phases.append(Phase("head", "the new head alone", frozen, epochs[0], rates[0]))
    if epochs[1]:
        until = int(until) if until.isdigit() else until
        first = f"layer {until}" if isinstance(until, int) else f"what follows {until}"
        phases.append(Phase("top", f"from {first} on", frozen_until(model, until), epochs[1], rates[1]))
    return model, tuple(phases)


def _load(model: Model, base: Model, name: str, arguments: argparse.Namespace) -> Mapping[str, Any]:
    """The variables of the base, from where --weights says, and fresh ones for the head."""
    if name in list_models():
        pretrained = get_model(name, seed=arguments.seed, **_network_arguments(name, arguments)).variables
    elif arguments.weights == "none":
        pretrained = {}
    else:
        pretrained = load_variables(arguments.weights or name, base)
    return model.init_variables(arguments.seed, base=pretrained)
