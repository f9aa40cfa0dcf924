"""Files of old versions of Keras, changed: refused with a WeightError that names them, or read, and soon."""

import io
import itertools
import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np

import weight_port
from tests.faults import archive_mutations, attribute_mutations, config_mutations, hdf5_mutations
from tests.faults.files import MODEL, REFUSED, Damaged, modelled, tries
from tests.faults.report import Row, at_most, tally
from tests.places import LEGACY
from tests.weight_port.malformed import Reader

FILES = sorted(
    path for path in LEGACY.glob("*/*") if path.suffix in (".h5", ".keras") and not path.name.endswith(".weights.h5")
)
VERSIONS = sorted({path.parent.name for path in FILES})


@cache
def stored(path: Path) -> dict[str, Any]:
    """The configuration in a file."""
    return weight_port.read_config(path)


def with_config(path: Path, text: str) -> bytes:
    """The file with another configuration."""
    content = text.encode(errors="surrogatepass")
    if path.suffix == ".keras":
        members = archive_mutations.members(path.read_bytes())
        return archive_mutations.packed(list((members | {archive_mutations.CONFIG: content}).items()))
    stream = io.BytesIO(path.read_bytes())
    with h5py.File(stream, "a") as file:
        del file.attrs["model_config"]
        # HDF5 has room for a large attribute only where it is of text of any length, which is Unicode.
        small = len(content) < 1 << 15
        file.attrs["model_config"] = np.bytes_(content) if small else text.encode("ascii", "replace").decode()
    return stream.getvalue()


def configs(paths: list[Path], source: random.Random, broken: bool = False) -> Damaged:
    """Without end: the files of a version in turn, each with its configuration changed."""
    endless = [(path, config_mutations.changes(stored(path), source)) for path in paths]
    for path, changes in itertools.cycle(endless):
        label, text = next(changes)
        if broken:
            label, text = config_mutations.broken_text(text, source)
        yield (path.name, label), with_config(path, text)


def attributes(paths: list[Path], source: random.Random) -> Damaged:
    """Attributes of other types, each in each file, then names without end."""
    for path in paths:
        yield from attribute_mutations.other_types(path.read_bytes())
    endless = [attribute_mutations.other_names(path.read_bytes(), source) for path in paths]
    for each in itertools.cycle(endless):
        yield next(each)


def damaged(paths: list[Path], source: random.Random) -> Damaged:
    """Without end: bytes of the files changed, in every way that there is for files of Keras 3."""
    while True:
        path, mutation = source.choice(paths), source.choice(list(hdf5_mutations.MUTATIONS.values()))
        label, content = mutation(path.read_bytes(), source)
        yield (path.name, mutation.__name__, label), content


def plan() -> Iterator[tuple[str, int, Damaged]]:
    """What is tried, how often, and the files."""
    for version in VERSIONS:
        paths = [path for path in FILES if path.parent.name == version]
        old = [path for path in paths if path.suffix == ".h5"]
        yield f"{version}: configuration changed", 1500, configs(paths, random.Random(version))
        yield f"{version}: configuration's text damaged", 200, configs(paths, random.Random(version), broken=True)
        if old:
            yield f"{version}: attributes of other types", 1500, attributes(old, random.Random(version))
            yield f"{version}: bytes", 500, damaged(old, random.Random(version))


def rows(count: int | None) -> Iterator[Row]:
    """What becomes of changed files of every version."""
    reader = Reader(None)
    try:
        for tried, times, files in plan():
            yield tally(tried, tries(files, reader, modelled, at_most(times, count)), {REFUSED, MODEL})
    finally:
        reader.stop()
