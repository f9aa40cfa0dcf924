"""Resolves and checks the arguments of `flaxapps finetune`. All problems are reported at once."""

import argparse
import math
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple

from flaxapps.cli.finetune.folder import check_output
from flaxapps.cli.finetune.head import feature_node, put_head
from flaxapps.cli.finetune.optimizer import wrong_settings
from flaxapps.cli.finetune.settings import RATES
from flaxapps.cli.models import ResolvedModel, resolve_model
from flaxapps.cli.options import given_resizing
from flaxapps.inference.preprocessing import FromChannelsLast, Function, preprocessing_function
from flaxapps.model import Model
from flaxapps.photos.parts import find_parts
from flaxapps.registry import list_models, model_info
from flaxapps.runtime.console import describe_error
from flaxapps.runtime.files import as_path
from flaxapps.train.data.folders import image_folder
from flaxapps.train.data.image_files import ImageDataset
from flaxapps.train.data.tables import image_table
from flaxapps.train.freezing.frozen import frozen_layers, frozen_until, layer_paths
from flaxapps.train.step.augmentation import Augmentation

STATISTICS = ("BatchNormalization",)  # layers that --freeze-batchnorm freezes
NAMED_WEIGHTS = ("imagenet", "none")  # all others are files


class Phase(NamedTuple):
    """One phase of the training.

    Attributes:
        name: Name of its folder: "head" or "top".
        title: Title to show.
        frozen: Frozen layers.
        epochs: Number of epochs.
        learning_rate: The largest of the phase.
        optimizer: Name of the optimizer if none is given.
    """

    name: str
    title: str
    frozen: frozenset[str]
    epochs: int
    learning_rate: float
    optimizer: str


class Plan(NamedTuple):
    """The resolved arguments. Nothing is downloaded and no array is allocated for them.

    Attributes:
        model: The network with its new head.
        load: Loads or initializes its variables.
        phases: One or two.
        data: Training photos.
        validation: Validation photos, or None.
        preprocess: "caffe", "tf", "torch" or "rescale"; False for none.
        augmentation: Augmentation of the photos in training, or None.
    """

    model: Model
    load: Callable[[], Mapping[str, Any]]
    phases: tuple[Phase, ...]
    data: ImageDataset
    validation: ImageDataset | None
    preprocess: str | Literal[False]
    augmentation: Augmentation | None

    def steps(self, phase: Phase, batch_size: int) -> int:
        """Returns the number of steps of a phase."""
        return phase.epochs * -(-len(self.data) // batch_size)

    @property
    def preprocessing(self) -> bool | str | Function:
        """The preprocessing of photos as `fit` and `evaluate` take it."""
        if self.model.data_format == "channels_last":
            return self.preprocess
        return FromChannelsLast(preprocessing_function(self.model, self.preprocess))


class Problems:
    """Collects problems, so that all of them can be reported at once."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def attempt(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Calls a function; returns None if it raises, or if an argument is None because an earlier call did."""
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
        ValueError: Arguments or photos are not valid; all problems are listed.
    """
    problems = Problems()
    for check in (_check_packages, check_output, _check_numbers):
        problems.attempt(check, arguments)
    base = problems.attempt(_base, arguments)
    form = problems.attempt(lambda base: base.photo_format, base)
    preprocess = problems.attempt(lambda base: base.preprocess, base)
    reading: dict[str, Any] = {
        "image_size": (form.height, form.width) if form else (1, 1),
        "color_mode": form.color_mode if form else "rgb",
        **given_resizing(arguments),
        "on_error": arguments.on_error,
        "workers": arguments.workers,
        "seed": arguments.seed,
    }
    data = problems.attempt(_photos, arguments, reading)
    validation = data and problems.attempt(_validation_photos, arguments, reading, data)
    augmentation = problems.attempt(_augmentation, arguments)
    extended = problems.attempt(lambda base, data: _extend(base.model, data, arguments), base, data)
    if problems.found:
        raise ValueError("; ".join(problems.found))
    model, phases = extended

    def load() -> Mapping[str, Any]:
        variables: dict[str, Any] = model.init_variables(arguments.seed, base=base.load())
        return variables

    return Plan(model, load, phases, data, validation, preprocess, augmentation)


def count_photos(arguments: argparse.Namespace) -> int:
    """Counts the photos to train on, without reading them.

    Raises:
        ValueError: The data is not valid.
        OSError: It cannot be read.
    """
    return len(_photos(arguments, {"image_size": (1, 1), "on_error": "skip", "seed": arguments.seed}))


def _check_packages(arguments: argparse.Namespace) -> None:
    needed = ["grain", "matplotlib"] + (["tensorboardX"] if arguments.tensorboard else [])
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise ValueError(f"{', '.join(missing)} is not installed: pip install 'flaxapps[train]'")


def _check_numbers(arguments: argparse.Namespace) -> None:
    wrong = wrong_settings(arguments)
    if len(arguments.epochs) > 2 or len(arguments.learning_rate) > 2:
        wrong.append("--epochs and --learning-rate take a number for each of the two phases")
    if not any(arguments.epochs):
        wrong.append("--epochs should be above 0 for at least one phase")
    second = arguments.freeze_until is not None or arguments.freeze_as_saved
    if not second and any(arguments.epochs[1:]):
        wrong.append("a second number for --epochs needs --freeze-until LAYER or INDEX, or --freeze-as-saved")
    if not 0 <= arguments.validation_split < 1 or not 0 <= arguments.dropout < 1:
        wrong.append("--validation-split and --dropout should be from 0 to below 1")
    if any(rate <= 0 for rate in arguments.learning_rate):
        wrong.append("--learning-rate should be above 0")
    if arguments.patience and not _places(arguments)[1] and not arguments.validation_split:
        wrong.append("--patience needs validation data: give --validation or --validation-split")
    if arguments.weights not in (None, *NAMED_WEIGHTS) and not as_path(arguments.weights).is_file():
        wrong.append(f"--weights: there is no file {arguments.weights}")
    if wrong:
        raise ValueError("; ".join(wrong))


def _base(arguments: argparse.Namespace) -> ResolvedModel:
    """Resolves the network without its classifier, or the model of a file unchanged."""
    network: dict[str, Any] = {}
    if arguments.model in list_models():
        size = arguments.image_size or [model_info(arguments.model).default_size] * 2
        network = {"include_top": False, "input_shape": (*size, 3), "dtype": arguments.dtype}
    elif arguments.dtype or arguments.weights == "imagenet":
        raise ValueError("--dtype and --weights imagenet are for the networks of `flaxapps list`, not for files")
    is_file = arguments.weights not in (None, *NAMED_WEIGHTS) and as_path(arguments.weights).is_file()
    return resolve_model(
        arguments.model,
        weights=arguments.weights if is_file else None,
        size=arguments.image_size,
        preprocess=arguments.preprocess,
        initialize=arguments.weights == "none",
        seed=arguments.seed,
        **network,
    )


def _photos(arguments: argparse.Namespace, reading: dict[str, Any]) -> ImageDataset:
    data, validation = _places(arguments)
    split = arguments.validation_split if not validation else 0
    options = {"validation_split": split, "subset": "training"} if split else {}
    return _read(data, **reading, **options)


def _validation_photos(arguments: argparse.Namespace, reading: dict[str, Any], data: ImageDataset) -> Any:
    place, validation = _places(arguments)
    if validation:
        return _read(validation, **reading, class_names=data.class_names)
    if not arguments.validation_split:
        return None
    return _read(place, **reading, validation_split=arguments.validation_split, subset="validation")


def _places(arguments: argparse.Namespace) -> tuple[str, str | None]:
    """Training and validation data: as given, or the parts of a data set in one folder."""
    parts = find_parts(arguments.data)
    if parts is None:
        return arguments.data, arguments.validation
    return str(parts.training), arguments.validation or (str(parts.validation) if parts.validation else None)


def _read(place: str, **options: Any) -> ImageDataset:
    return (image_table if as_path(place).is_file() else image_folder)(place, **options)


def _augmentation(arguments: argparse.Namespace) -> Augmentation | None:
    if arguments.randaugment and arguments.randaugment[0] % 1:
        raise ValueError(f"--randaugment takes a whole number of operations, got {arguments.randaugment[0]}")
    augmentation = Augmentation(
        flip=arguments.flip,
        crop=(arguments.random_crop, 1.0) if arguments.random_crop else None,
        rotation=arguments.rotation,
        brightness=arguments.brightness,
        contrast=arguments.contrast,
        randaugment=(int(arguments.randaugment[0]), arguments.randaugment[1]) if arguments.randaugment else None,
        erasing=arguments.random_erasing,
        mixup=arguments.mixup,
        cutmix=arguments.cutmix,
    )
    return augmentation if augmentation != Augmentation() else None


def _extend(base: Model, data: ImageDataset, arguments: argparse.Namespace) -> tuple[Model, tuple[Phase, ...]]:
    features, classes = feature_node(base, arguments.features), len(data.class_names)
    model = put_head(features, base.input, classes, arguments.head, dropout=arguments.dropout, name=base.name)
    trunk = Model(base.input, features)
    until = arguments.freeze_until
    second = until is not None or arguments.freeze_as_saved
    epochs = [*arguments.epochs, arguments.epochs[0] if second else 0][:2]
    if arguments.steps:
        epochs[1 if second else 0] = math.ceil(arguments.steps / math.ceil(len(data) / arguments.batch_size))
    rates = (*arguments.learning_rate, RATES[1])[:2]
    phases = []
    if epochs[0]:
        frozen = frozen_layers(model, names=[layer.name for layer in trunk.layers])
        phases.append(Phase("head", "the new head alone", frozen, epochs[0], rates[0], "rmsprop"))
    if epochs[1]:
        phases.append(_second_phase(model, arguments, epochs[1], rates[1]))
    return model, tuple(phases)


def _second_phase(model: Model, arguments: argparse.Namespace, epochs: int, rate: float) -> Phase:
    """Plans the phase that also trains layers of the network."""
    until, frozen = arguments.freeze_until, frozenset[str]()
    title = "the layers not frozen in the model file"
    if arguments.freeze_as_saved:
        frozen |= frozen_layers(model, as_saved=True)
    if until is not None:
        place = int(until) if until.isdigit() else until
        frozen |= frozen_until(model, place)
        title = f"the layers {f'from {place} on' if isinstance(place, int) else f'after {place}'}"
    if arguments.freeze_batchnorm:
        frozen |= frozenset(path for path, layer in layer_paths(model.layers) if layer.class_name in STATISTICS)
    return Phase("top", title, frozen, epochs, rate, "sgd")
