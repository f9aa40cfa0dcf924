"""Thousands of damaged files, each read by a process of its own: a WeightError or the right weights, and soon."""

import base64
import json
import marshal
import random
import re
import struct
import subprocess
import sys
import time
import zipfile

import h5py
import numpy as np
import pytest

import flaxapps
from tests.weight_port.malformed import (
    ROOT,
    SECONDS,
    SUFFIXES,
    Reader,
    Verdicts,
    array_bytes,
    changed_archive,
    describe,
    mutations,
    read_members,
    saved_by_keras,
)
from tests.weight_port.test_loading import in_keras, nested, ours
from weight_port import WeightError

pytestmark = pytest.mark.slow

TRUNCATIONS, MUTATIONS = 200, 2000


@pytest.fixture(scope="module")
def read():
    reader = Reader(describe(ours(nested)))
    yield reader
    reader.stop()


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    """The bytes of a small model in every format that Keras writes now."""
    return saved_by_keras(in_keras(nested), tmp_path_factory.mktemp("contents"))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_bytes_changed(suffix, contents, read, tmp_path):
    path, content, source = tmp_path / f"model{suffix}", contents[suffix], random.Random(suffix)
    path.write_bytes(content)
    verdicts = Verdicts(read(path)["weights"]["read"])
    assert len(verdicts.right) == 10
    free = set() if suffix == ".keras" else array_bytes(content)
    for changed, places in mutations(content, source, MUTATIONS):
        path.write_bytes(changed)
        verdicts.add([(place, changed[place]) for place in places], read(path), not free.isdisjoint(places))
    print(suffix, dict(verdicts.counts))
    assert not verdicts.wrong, "\n".join(verdicts.wrong[:20])
    assert verdicts.counts["refused"] > 100


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_truncated(suffix, contents, read, tmp_path):
    path, content, source = tmp_path / f"model{suffix}", contents[suffix], random.Random(suffix)
    for _ in range(TRUNCATIONS):
        size = source.randrange(len(content))
        path.write_bytes(content[:size])
        found = read(path)
        assert "refused" in found["weights"], (size, found)
        assert "refused" in found["config"], (size, found)


@pytest.mark.parametrize("length", [0, 255, (1 << 64) - 8])
def test_damaged_heap_of_names(length, contents, read, tmp_path):
    """Which libhdf5 2.0 reads for ever; also in an archive whose checksums are right."""
    content = bytearray(contents[".weights.h5"])
    struct.pack_into("<Q", content, content.index(b"GCOL") + 88, length)  # of the third name
    (tmp_path / "model.weights.h5").write_bytes(content)
    members = {"model.weights.h5": bytes(content)}
    changed_archive(tmp_path / "model.keras", contents[".keras"], lambda all_: all_.update(members))
    for name in ("model.weights.h5", "model.keras"):
        check_refused_soon(read, tmp_path / name, "string heap", ("weights",))


def test_damaged_heap_inside_an_array(contents, read, tmp_path):
    """Arrays are not searched for heaps, so strings said to be in one must not be looked for there."""
    content = bytearray(contents[".weights.h5"])
    heap = content.index(b"GCOL")
    size = struct.unpack_from("<Q", content, heap + 8)[0]
    damaged = content[heap : heap + size]
    struct.pack_into("<Q", damaged, 88, 0)
    path = tmp_path / "model.weights.h5"
    path.write_bytes(content)
    with h5py.File(path, "a") as file:
        file["layers/dense/vars/2"] = np.frombuffer(bytes(damaged), "<f4")
        place = file["layers/dense/vars/2"].id.get_offset()
    content = path.read_bytes()
    assert content.count(struct.pack("<Q", heap)) > 1
    path.write_bytes(content.replace(struct.pack("<Q", heap), struct.pack("<Q", place)))
    check_refused_soon(read, path, "damaged", ("weights",))


@pytest.mark.parametrize("length", [0, 255])
def test_damaged_heap_inside_an_array_for_the_note_of_a_bfloat16_array(length, tmp_path):
    """The one string that is read beside the arrays, and not from the view without them."""
    damaged = bytearray(4096)
    struct.pack_into("<4sB3xQ", damaged, 0, b"GCOL", 1, len(damaged))
    struct.pack_into("<HH4xQ8s", damaged, 16, 1, 1, 8, b"bfloat16")
    struct.pack_into("<HH4xQ", damaged, 40, 2, 1, length)
    path = tmp_path / "model.weights.h5"
    with h5py.File(path, "w") as file:
        file["layers/dense/vars/0"] = np.zeros(3, "V2")
        file["layers/dense/vars/0"].attrs["dtype"] = "bfloat16"
        file.flush()
        heap = struct.pack("<Q", path.read_bytes().index(b"GCOL"))
        file["layers/dense/vars/1"] = np.frombuffer(bytes(damaged), "<f4")
        place = struct.pack("<Q", file["layers/dense/vars/1"].id.get_offset())
    content = path.read_bytes()
    assert content.count(heap) == 1
    path.write_bytes(content.replace(heap, place))
    command = [sys.executable, "-m", "weight_port", "inspect", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 2
    assert "string heap" in done.stderr


def check_refused_soon(read, path, says="", kinds=("weights", "config")):
    start = time.monotonic()
    found = read(path)
    assert time.monotonic() - start < SECONDS / 2
    for kind in kinds:
        assert "refused" in found[kind], found
    assert says in "".join(found[kind]["refused"] for kind in kinds)


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize(("member", "kind"), [("model.weights.h5", "weights"), ("config.json", "config")])
def test_zip_bombs(member, kind, compression, contents, read, tmp_path):
    """100 MB of nothing, well packed."""

    def change(members):
        members[member] = members[member] + b" " * 100_000_000

    changed_archive(tmp_path / "bomb.keras", contents[".keras"], change, compression)
    assert (tmp_path / "bomb.keras").stat().st_size < 500_000
    check_refused_soon(read, tmp_path / "bomb.keras", "too many", (kind,))


@pytest.mark.parametrize("declared", [0, 1000, 1 << 31])
def test_archives_that_lie_about_sizes(declared, contents, read, tmp_path):
    path = tmp_path / "model.keras"
    changed_archive(path, contents[".keras"], lambda members: None, zipfile.ZIP_DEFLATED)
    content = bytearray(path.read_bytes())
    for name in (b"model.weights.h5", b"config.json"):
        struct.pack_into("<I", content, content.rindex(name) - 46 + 24, declared)
    path.write_bytes(content)
    check_refused_soon(read, path)


KERNEL = {".h5": "model_weights/head/head/kernel", ".weights.h5": "layers/dense/vars/0"}


def without_kernel(file, name):
    del file[name]
    return file


SWAPS = {
    "2**40 elements": lambda file, name: file.create_dataset(name, (1 << 40,), "float32"),
    "2**40 elements in chunks": lambda file, name: file.create_dataset(
        name, (1 << 20, 1 << 20), "float32", chunks=(64, 64), compression="gzip"
    ),
    "32 dimensions": lambda file, name: file.create_dataset(name, (2,) * 32, "float32"),
    "nothing there": lambda file, name: None,
    "a group": lambda file, name: file.create_group(name),
    "text": lambda file, name: file.create_dataset(name, data=np.full((4, 2), b"text")),
    "text of any length": lambda file, name: file.create_dataset(name, (4, 2), h5py.string_dtype()),
    "integers": lambda file, name: file.create_dataset(name, data=np.ones((4, 2), "int32")),
    "references": lambda file, name: file.create_dataset(name, (4, 2), h5py.ref_dtype),
    "lists": lambda file, name: file.create_dataset(name, (4, 2), h5py.vlen_dtype("float32")),
}


@pytest.mark.parametrize("suffix", KERNEL)
@pytest.mark.parametrize("swap", SWAPS)
def test_other_things_in_place_of_an_array(swap, suffix, contents, read, tmp_path):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(contents[suffix])
    with h5py.File(path, "a") as file:
        SWAPS[swap](without_kernel(file, KERNEL[suffix]), KERNEL[suffix])
    check_refused_soon(read, path, kinds=("weights",))


GROUPS = {
    ".h5": ["model_weights", "model_weights/inner", "model_weights/head/head"],
    ".weights.h5": ["layers", "layers/dense", "layers/dense/vars", "layers/functional", "layers/functional/layers"],
}


@pytest.mark.parametrize(("suffix", "group"), [(suffix, group) for suffix, all_ in GROUPS.items() for group in all_])
def test_missing_groups(suffix, group, contents, read, tmp_path):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(contents[suffix])
    with h5py.File(path, "a") as file:
        del file[group]
    check_refused_soon(read, path, kinds=("weights",))


CODE = "import os; os.mkdir({marker!r})"


@pytest.mark.parametrize(
    "form", ["Lambda", "custom class", "custom model", "custom activation", "known name elsewhere"]
)
def test_configurations_that_name_code(form, contents, tmp_path, monkeypatch):
    """Nothing of it is imported or run."""
    (tmp_path / "evil_module.py").write_text(CODE.format(marker=str(tmp_path / "ran")))
    monkeypatch.syspath_prepend(tmp_path)
    config = json.loads(read_members(contents[".keras"])["config.json"])
    layer = config["config"]["layers"][-1]
    elsewhere = {"module": "evil_module", "registered_name": "evil>Evil"}
    if form == "Lambda":
        code = base64.b64encode(marshal.dumps(compile(CODE.format(marker=str(tmp_path / "ran")), "x", "exec"))).decode()
        function = {"class_name": "__lambda__", "config": {"code": code, "defaults": None, "closure": None}}
        layer |= {"class_name": "Lambda", "config": {"name": "head", "function": function}}
    elif form == "custom class":
        layer |= {"class_name": "Evil", **elsewhere}
    elif form == "custom model":
        config |= {"class_name": "Evil", **elsewhere}
    elif form == "custom activation":
        layer["config"]["activation"] = {"class_name": "function", "config": "evil", **elsewhere}
    else:
        layer |= elsewhere

    changed_archive(
        tmp_path / "model.keras",
        contents[".keras"],
        lambda members: members.update({"config.json": json.dumps(config)}),
    )
    if form == "custom model":  # a subclass whose configuration is a graph: the class is about training
        assert flaxapps.load_model(tmp_path / "model.keras").model.layers
    else:
        with pytest.raises(WeightError, match=re.escape(str(tmp_path / "model.keras"))):
            flaxapps.load_model(tmp_path / "model.keras")
    assert not (tmp_path / "ran").exists()
    assert "evil_module" not in sys.modules


@pytest.mark.parametrize("kind", [0, 2, 15])
def test_text_of_a_damaged_type_of_variable_length(kind, tmp_path):
    """Of one that is neither a sequence (0) nor a string (1) libhdf5 2.0 takes the interpreter down."""
    path = tmp_path / "model.h5"
    with h5py.File(path, "w") as file:
        file.attrs.create("layer_names", ["dense"], dtype=h5py.string_dtype())
        file.create_group("dense").attrs.create("weight_names", ["dense/kernel:0"], dtype=h5py.string_dtype())
        file["dense/dense/kernel:0"] = np.zeros((2, 3), "f4")
    content = bytearray(path.read_bytes())
    content[content.index(b"\x19\x01") + 1] = kind  # version 1 of class 9, a string
    path.write_bytes(content)
    command = [sys.executable, "-m", "weight_port", "inspect", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 2
    assert "layer_names is not text" in done.stderr
