"""Files made by hand to do harm: archives that lead elsewhere, bombs, endless nesting, circles, contradictions."""

import io
import json
import stat
import struct
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.faults import archive_mutations
from tests.faults.archive_mutations import CONFIG, WEIGHTS, packed
from tests.faults.files import MODEL, REFUSED, contents, modelled, with_config
from tests.faults.report import Row, tally
from tests.weight_port.malformed import Reader

Config = dict[str, Any]
Attack = Callable[[Path], bytes]
MANY = 100_000


def members() -> dict[str, bytes]:
    return archive_mutations.members(contents()[".keras"])


def with_members(*extra: tuple[str, bytes]) -> bytes:
    return packed([*members().items(), *extra])


def of_config(change: Callable[[Config], object]) -> Attack:
    """The small model with its configuration changed by hand."""

    def made(folder: Path) -> bytes:
        config = json.loads(members()[CONFIG])
        change(config)
        return with_config(".keras", json.dumps(config))

    return made


def as_text(text: str) -> Attack:
    return lambda folder: with_config(".keras", text)


def of_weights(change: Callable[[h5py.File], object]) -> Attack:
    """The small model in HDF5, changed by hand."""

    def made(folder: Path) -> bytes:
        stream = io.BytesIO(contents()[".h5"])
        with h5py.File(stream, "a") as file:
            change(file)
        return stream.getvalue()

    return made


def zip_slip(folder: Path) -> bytes:
    names = ("../escaped", "/tmp/escaped", "..\\escaped", "a/../../escaped", str(folder / "escaped"))
    return with_members(*((name, b"escaped") for name in names))


def links_in_archive(folder: Path) -> bytes:
    """The weights are a symbolic link to a file of this machine."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(CONFIG, members()[CONFIG])
        link = zipfile.ZipInfo(WEIGHTS)
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    return stream.getvalue()


def overlapping(folder: Path) -> bytes:
    """Two members at one place: how small archives unpack to much."""
    content = bytearray(with_members(("second", b"x" * 1000)))
    entries = [place for place in range(len(content)) if content[place : place + 4] == b"PK\x01\x02"]
    for place in entries:
        struct.pack_into("<I", content, place + 42, 0)
    return bytes(content)


def encrypted(folder: Path) -> bytes:
    content = bytearray(contents()[".keras"])
    for place in range(len(content) - 8):
        if content[place : place + 4] in (b"PK\x01\x02", b"PK\x03\x04"):
            content[place + (8 if content[place + 2] == 1 else 6)] |= 1
    return bytes(content)


def nested_models(depth: int) -> Attack:
    """A Sequential model in a Sequential model, and so on."""
    inner = '{"class_name": "Dense", "config": {"name": "d", "units": 1, "batch_input_shape": [null, 1]}}'
    text = '{"class_name": "Sequential", "config": {"name": "s", "layers": ['
    return as_text(text * depth + inner + "]}}" * depth)


def swap_inputs(config: Config) -> None:
    """Every layer takes what the next one gives."""
    layers = config["config"]["layers"]
    for layer, following in zip(layers[1:], [*layers[2:], layers[1]], strict=True):
        history = layer["inbound_nodes"][0]["args"][0]["config"]["keras_history"]
        history[0] = following["config"]["name"]


def own_input(config: Config) -> None:
    layer = config["config"]["layers"][-1]
    layer["inbound_nodes"][0]["args"][0]["config"]["keras_history"][0] = layer["config"]["name"]


def rename(config: Config, name: str) -> None:
    layer = config["config"]["layers"][-1]
    layer["name"] = layer["config"]["name"] = name
    config["config"]["output_layers"][0] = name


def double(config: Config) -> None:
    config["config"]["layers"].append(config["config"]["layers"][-1])


def many_layers(config: Config) -> None:
    """A chain as long as nobody's, each layer stored before the one it needs."""
    layers = config["config"]["layers"]
    head, before = layers[-1], layers[-1]["config"]["name"]
    relus = []
    for number in range(3000):
        layer = json.loads(json.dumps(head).replace(head["config"]["name"], f"more_{number}"))
        layer["class_name"], layer["config"] = "ReLU", {"name": f"more_{number}"}
        layer["inbound_nodes"][0]["args"][0]["config"]["keras_history"][0] = before
        before = f"more_{number}"
        relus.append(layer)
    layers.extend(reversed(relus))


def set_units(units: Any) -> Callable[[Config], None]:
    return lambda config: config["config"]["layers"][-1]["config"].update(units=units)


def huge_attribute(file: h5py.File) -> None:
    del file.attrs["model_config"]
    file.attrs["model_config"] = "[" * (1 << 26)


def many_names(file: h5py.File) -> None:
    group = file["model_weights"]
    del group.attrs["layer_names"]
    for part in range(50):
        group.attrs[f"layer_names{part}"] = np.array([f"layer_{part}_{number}".encode() for number in range(2000)])


def circle_of_groups(file: h5py.File) -> None:
    file["model_weights/inner/again"] = file["model_weights"]
    file["model_weights/inner/soft"] = h5py.SoftLink("/model_weights/inner/soft")


def names_that_lead_elsewhere(file: h5py.File) -> None:
    group = file["model_weights/head"]
    del group.attrs["weight_names"]
    group.attrs["weight_names"] = [b"/model_weights/inner/../../etc", b"../../.."]


def other_file(file: h5py.File) -> None:
    del file["model_weights/head/head/kernel"]
    file["model_weights/head/head/kernel"] = h5py.ExternalLink("/etc/hostname", "/kernel")


def outside_storage(file: h5py.File) -> None:
    del file["model_weights/head/head/kernel"]
    file["model_weights/head/head"].create_dataset(
        "kernel", (4, 2), "float32", external=[("/etc/hostname", 0, h5py.h5f.UNLIMITED)]
    )


def unknown_filter(file: h5py.File) -> None:
    """Filters are code that libhdf5 loads from a folder of plugins."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((4, 2))
    properties.set_filter(40_000, h5py.h5z.FLAG_OPTIONAL)
    del file["model_weights/head/head/kernel"]
    space = h5py.h5s.create_simple((4, 2))
    where = file["model_weights/head/head"].id
    dataset = h5py.h5d.create(where, b"kernel", h5py.h5t.IEEE_F32LE, space, properties)
    dataset.write_direct_chunk((0, 0), b"\x00" * 32)


ATTACKS: dict[str, tuple[Attack, set[str]]] = {
    "members named to be unpacked elsewhere": (zip_slip, {MODEL}),
    "a symbolic link in place of the weights": (links_in_archive, {REFUSED}),
    "members at one place": (overlapping, {REFUSED}),
    "an encrypted archive": (encrypted, {REFUSED}),
    f"{MANY:,} members": (lambda folder: with_members(*((f"m{n}", b"") for n in range(MANY))), {MODEL}),
    "a bomb: 2 GB of configuration": (lambda folder: bomb(CONFIG), {REFUSED}),
    "a bomb: 2 GB of weights": (lambda folder: bomb(WEIGHTS), {REFUSED}),
    "models nested 30 deep": (nested_models(30), {REFUSED, MODEL}),
    "models nested 300 deep": (nested_models(300), {REFUSED}),
    "models nested 5,000 deep": (nested_models(5000), {REFUSED}),
    "JSON nested 100,000 deep": (as_text("[" * MANY + "]" * MANY), {REFUSED}),
    "a number of 100,000 digits": (as_text("9" * MANY), {REFUSED}),
    "layers in a circle": (of_config(swap_inputs), {REFUSED}),
    "a layer that is its own input": (of_config(own_input), {REFUSED}),
    "one name for two layers": (of_config(lambda config: rename(config, "inner")), {REFUSED}),
    "one layer stored twice": (of_config(double), {REFUSED}),
    "3,000 more layers than are used, the last first": (of_config(many_layers), {REFUSED, MODEL}),
    "a name that is a path": (of_config(lambda config: rename(config, "../../head")), {REFUSED, MODEL}),
    "an empty name": (of_config(lambda config: rename(config, "")), {REFUSED, MODEL}),
    "more units than the weights have": (of_config(set_units(3)), {REFUSED}),
    "2**40 units": (of_config(set_units(1 << 40)), {REFUSED}),
    "minus one unit": (of_config(set_units(-1)), {REFUSED}),
    "units that are text": (of_config(set_units("2")), {REFUSED}),
    "a configuration of 64 MB in an attribute": (of_weights(huge_attribute), {REFUSED}),
    "100,000 layer names": (of_weights(many_names), {REFUSED}),
    "groups in a circle": (of_weights(circle_of_groups), {MODEL}),
    "names of arrays that lead elsewhere": (of_weights(names_that_lead_elsewhere), {REFUSED}),
    "an array linked from another file": (of_weights(other_file), {REFUSED}),
    "an array kept in another file": (of_weights(outside_storage), {REFUSED}),
    "an array behind an unknown filter": (of_weights(unknown_filter), {REFUSED}),
}


def bomb(member: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in members().items():
            if name != member:
                archive.writestr(name, content)
        with archive.open(member, "w", force_zip64=True) as packing:
            for _ in range(128):
                packing.write(bytes(1 << 24))
    return stream.getvalue()


def rows(count: int | None) -> Iterator[Row]:
    """What becomes of each, and that nothing was written beside it."""
    reader = Reader(None)
    try:
        for tried, (made, wanted) in ATTACKS.items():
            with tempfile.TemporaryDirectory() as folder:
                inner = Path(folder) / "a" / "b"
                inner.mkdir(parents=True)
                path = inner / "model.any"
                path.write_bytes(made(inner))
                outcome = modelled(reader(path))
                beside = [each for each in Path(folder).rglob("*") if each.is_file() and each != path]
                yield tally(tried, [("", f"{outcome}, and wrote {beside}" if beside else outcome)], wanted)
    finally:
        reader.stop()
