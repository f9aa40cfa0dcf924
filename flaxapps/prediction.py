"""Photos through a network in one stream: for each its output, or the error that came in its place."""

import argparse
import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flaxapps.classification import check_classes, chosen_preprocessing, open_model, settle_format
from flaxapps.inference import predict_batches, usual_batch_size
from flaxapps.model import Model
from flaxapps.optimizing import Mode
from flaxapps.paths import local_file
from flaxapps.photos import PhotoFormat, read_photos
from flaxapps.precision import with_dtype
from flaxapps.recipe import Recipe
from flaxapps.registry import list_models

Outcome = tuple[Path, NDArray[Any] | Exception]
MANY_PHOTOS = 64  # for fewer, compiling the fast form takes longer than it saves


@dataclass(frozen=True, eq=False)
class Plan:
    """How photos become outputs: all that is known before weights are loaded.

    Attributes:
        model: The network, as it is before it is optimized.
        load: Gives its variables.
        form: How it takes photos.
        preprocess: What is done to them, as `predict` takes it.
        interpolation: How they are resized.
        draft: Whether large JPEG files are decoded at reduced size.
        batch_size: Photos in a batch.
        mode: How the model is optimized.
    """

    model: Model
    load: Callable[[], Any]
    form: PhotoFormat
    preprocess: bool | str
    interpolation: str
    draft: bool
    batch_size: int
    mode: Mode

    def outcomes(self, model: Model, variables: Mapping[str, Any], paths: Iterable[Path]) -> Iterator[Outcome]:
        """The output for every photo, or the error that came in its place, in the order of `paths`.

        The next photos are decoded meanwhile; `paths` is read about two batches ahead.

        Args:
            model: The network, optimized or not.
            variables: Its arrays.
            paths: The photos.
        """
        asked: deque[Path] = deque()
        read: deque[Path] = deque()
        errors: dict[Path, Exception] = {}

        def noted() -> Iterator[Path]:
            for path in paths:
                asked.append(path)
                yield path

        def photos() -> Iterator[NDArray[Any]]:
            options: dict[str, Any] = {"interpolation": self.interpolation, "draft": self.draft}
            options |= {"batch_size": self.batch_size, "unreadable": errors.__setitem__}
            for files, arrays in read_photos(noted(), self.form, **options):
                read.extend(files)
                yield arrays

        for (rows,) in predict_batches(
            model, variables, photos(), batch_size=self.batch_size, preprocess=self.preprocess
        ):
            for row in rows:
                file = read.popleft()
                while (path := asked.popleft()) != file:
                    yield path, errors[path]
                yield file, row
        for path in asked:
            yield path, errors[path]


def readable(outcomes: Sequence[Outcome], columns: int = 0) -> tuple[list[Path], NDArray[Any]]:
    """The photos that could be read, and their outputs together.

    Args:
        outcomes: Of all photos.
        columns: Of the outputs, (0, columns), where no photo could be read.
    """
    read = [(path, row) for path, row in outcomes if not isinstance(row, Exception)]
    rows = [row for _, row in read]
    return [path for path, _ in read], np.stack(rows) if rows else np.zeros((0, columns), np.float32)


def plan_prediction(arguments: argparse.Namespace, recipe: Recipe, count: int) -> Plan:
    """What the options of `flaxapps predict` come to.

    Args:
        arguments: Those of the command.
        recipe: Of its model, from `settle_recipe`.
        count: Of photos.

    Raises:
        ValueError: The model does not take photos, does not tell classes apart where these are wanted, or the options
            do not fit it.
    """
    model, load = open_model(recipe.model, arguments.weights)
    if arguments.layer:
        model = Model(model.input, model.get_layer(arguments.layer).output, name=model.name)
    model = with_dtype(model, arguments.dtype) if arguments.dtype else model
    form = settle_format(model, arguments.size)
    if arguments.format != "npz":
        check_classes(model, recipe.class_names)
    elif not isinstance(model.output_shape, tuple):
        raise ValueError(f"{model.name!r} has several outputs: choose one with --layer")
    return Plan(
        model,
        load,
        form,
        preprocess=chosen_preprocessing(model, recipe.preprocess),
        interpolation=recipe.interpolation or "nearest",
        draft=arguments.draft,
        batch_size=arguments.batch_size or usual_batch_size(),
        mode="exact" if arguments.exact or count < MANY_PHOTOS else "fast",
    )


def identity(model: str, weights: str | None) -> str:
    """What tells one network with its weights from another, wherever their files are.

    Args:
        model: A network, or the path of a Keras model.
        weights: The path of a file of weights to use in place of the published or stored ones.

    >>> identity("vgg16", None)
    'vgg16 with its published weights'
    """
    if not weights and model in list_models():
        return f"{model} with its published weights"
    files = [file for file in (model, weights) if file and file not in list_models()]
    sums = []
    for file in files:
        with open(local_file(file), "rb") as stream:
            sums.append(hashlib.file_digest(stream, "sha256").hexdigest())
    return " with weights ".join([model, *sums] if model in list_models() else sums)
