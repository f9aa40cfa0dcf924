"""Training history as dictionaries of lists, and sums on the host from which its values are computed."""

import csv
import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from flaxapps.runtime.files import replacing
from flaxapps.train.step.metrics import add_sums, summarise
from flaxapps.train.step.sums import from_json, on_host, to_json

History = dict[str, list[Any]]
Sums = dict[str, Any]


def fetch_sums(sums: Mapping[str, Any]) -> Sums:
    """Fetches sums from the device: float64 and int64, in which many batches add up without rounding to float32.

    Waits for the step that computes them.
    """
    return {name: on_host(each) for name, each in jax.device_get(dict(sums)).items()}


def add_fetched(total: Sums, more: Sums) -> Sums:
    """Adds the sums of more batches; an empty dictionary is the sum of none."""
    return add_sums(total, more) if total else more


def values_of(sums: Sums, prefix: str = "") -> dict[str, Any]:
    """Converts sums to plain values, the loss first: floats, and lists of lists for a confusion matrix."""
    values = summarise(sums)
    return {
        prefix + name: values[name].tolist() if isinstance(values[name], np.ndarray) else values[name]
        for name in sorted(values, key=lambda name: (name != "loss", name))
    }


def sums_to_json(sums: Sums) -> dict[str, Any]:
    """Converts sums to JSON values, without loss of precision."""
    return {name: to_json(each) for name, each in sums.items()}


def sums_from_json(stored: Mapping[str, Any]) -> Sums:
    """Inverse of `sums_to_json`."""
    return {name: from_json(each) for name, each in stored.items()}


def extend(history: History, values: Mapping[str, Any]) -> History:
    """Returns a new history, longer by one epoch.

    >>> extend({"loss": [2.0]}, {"loss": 1.5})
    {'loss': [2.0, 1.5]}
    """
    return {name: [*history.get(name, []), value] for name, value in values.items()}


def write_csv(history: History, path: str | os.PathLike[str]) -> None:
    """Writes a row per epoch, atomically. Values that are not numbers, such as matrices, are left out.

    Args:
        history: Lists of equal length, by name.
        path: The file; it is replaced.
    """
    scalars = {name: values for name, values in history.items() if not any(isinstance(each, list) for each in values)}
    with replacing(path) as stream:
        writer = csv.writer(stream)
        writer.writerow(["epoch", *scalars])
        writer.writerows([epoch, *row] for epoch, row in enumerate(zip(*scalars.values(), strict=True), start=1))
