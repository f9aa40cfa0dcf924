"""Damaged and hostile weight and model files: refused with a WeightError, or read right, and soon; nothing crashes."""

import io
import json
import random
import tempfile
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.faults import archive_mutations, config_mutations, hdf5_mutations
from tests.faults.archive_mutations import CONFIG
from tests.faults.report import Row, at_most, tally
from tests.weight_port.malformed import Reader, describe, saved_by_keras
from tests.weight_port.test_loading import in_keras, nested, ours

REFUSED, RIGHT, OTHER = "refused", "right weights", "other values of the right shapes"
MODEL = "a model with its weights"
Damaged = Iterator[tuple[object, bytes]]


def newest_format(content: bytes) -> bytes:
    """An HDF5 file with everything in it written anew, with the newest structures that libhdf5 has."""
    stream = io.BytesIO()
    with h5py.File(io.BytesIO(content), "r") as old, h5py.File(stream, "w", libver="latest") as new:
        for name, value in old.attrs.items():
            new.attrs[name] = value
        for name in old:
            old.copy(name, new)
    return stream.getvalue()


@cache
def contents() -> dict[str, bytes]:
    """A small nested model as Keras saves it, in every format, and in the newest form of HDF5."""
    with tempfile.TemporaryDirectory() as folder:
        found = saved_by_keras(in_keras(nested), Path(folder))
    return {**found, **{f"{kind}, newest HDF5": newest_format(found[kind]) for kind in (".h5", ".weights.h5")}}


def judged(found: dict[str, Any], right: Any) -> str:
    """What became of a file: the worst of all ways to read it."""
    for way, answer in found.items():
        if "failed" in answer:
            return f"{way}: {answer['failed']}"
    answer = found["weights"]
    if "refused" in answer or answer["read"] == right:
        return REFUSED if "refused" in answer else RIGHT
    if {name: entry[:2] for name, entry in answer["read"].items()} == {
        name: entry[:2] for name, entry in right.items()
    }:
        return OTHER
    return f"other arrays: {answer['read']}"


def modelled(found: dict[str, Any]) -> str:
    """The same of a file whose model may be another one now."""
    answer = found["model"]
    return str(answer["failed"]) if "failed" in answer else REFUSED if "refused" in answer else MODEL


def tries(damaged: Damaged, reader: Reader, judge: Callable[[dict[str, Any]], str], count: int) -> Damaged:
    """Every file read by the worker, and the outcome."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.any"
        for label, content in islice(damaged, count):
            path.write_bytes(content)
            yield label, judge(reader(path))


def damaged_hdf5(kind: str, mutation: hdf5_mutations.Mutation, source: random.Random) -> Damaged:
    """One way to damage a file of one kind, in the old and the newest structures of HDF5."""
    several = [hdf5_mutations.several(contents()[each], mutation, source) for each in (kind, f"{kind}, newest HDF5")]
    while True:
        yield next(source.choice(several))


def configs(kind: str, source: random.Random, broken: bool) -> Damaged:
    """A whole model with its configuration changed."""
    config = json.loads(archive_mutations.members(contents()[".keras"])[CONFIG])
    for label, text in config_mutations.changes(config, source):
        if broken:
            label, text = config_mutations.broken_text(text, source)
        yield label, with_config(kind, text)


def with_config(kind: str, text: str) -> bytes:
    """The small model with another configuration."""
    content = text.encode(errors="surrogatepass")
    if kind == ".keras":
        members = archive_mutations.members(contents()[kind]) | {CONFIG: content}
        return archive_mutations.packed(list(members.items()))
    stream = io.BytesIO(contents()[kind])
    with h5py.File(stream, "a") as file:
        # Attributes of a fixed length have a limit of 64 KiB, those that Keras writes have not.
        file.attrs["model_config"] = np.bytes_(content) if len(content) < 1 << 15 else content.replace(b"\0", b" ")
    return stream.getvalue()


def plan() -> Iterator[tuple[str, int, Damaged, bool]]:
    """What is tried, how often, the files, and whether each describes a model of its own."""
    for kind in (".h5", ".weights.h5"):
        for name, mutation in hdf5_mutations.MUTATIONS.items():
            yield f"{kind}: {name}", 900, damaged_hdf5(kind, mutation, random.Random(kind + name)), False
    for name, change in archive_mutations.MUTATIONS.items():
        yield f".keras: {name}", 700, damaged_archives(change, random.Random(name)), False
    for kind, times in ((".keras", 2500), (".h5", 1500)):
        yield f"{kind}: configuration changed", times, configs(kind, random.Random(kind), broken=False), True
        yield f"{kind}: configuration's text damaged", 500, configs(kind, random.Random(kind), broken=True), True


def damaged_archives(mutation: archive_mutations.Mutation, source: random.Random) -> Damaged:
    """One way to damage an archive."""
    while True:
        yield mutation(contents()[".keras"], source)


def rows(count: int | None) -> Iterator[Row]:
    """What becomes of damaged files of every kind."""
    weights, models = Reader(describe(ours(nested))), Reader(None)
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "whole"
            path.write_bytes(contents()[".h5"])
            right = weights(path)["weights"]["read"]
        for tried, times, damaged, own in plan():
            reader, judge = (models, modelled) if own else (weights, partial(judged, right=right))
            found = tries(damaged, reader, judge, at_most(times, count))
            yield tally(tried, found, {REFUSED, MODEL} if own else {REFUSED, RIGHT, OTHER})
    finally:
        weights.stop()
        models.stop()
