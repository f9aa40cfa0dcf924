"""Files that are damaged, malformed or of another kind: a WeightError that names the file, and nothing else."""

import json
import random
import subprocess
import sys
import tracemalloc
import zipfile
from functools import cache

import h5py
import jax
import numpy as np
import pytest

import flaxapps
from flaxapps.saving.load import load_architecture
from tests.places import ROOT
from tests.weight_port.malformed import SUFFIXES, saved_by_keras
from tests.weight_port.test_loading import assert_same, in_keras, nested, ours, plain, repack, rows, write_legacy
from weight_port import WeightError, load_weights, read_config, readers
from weight_port.hdf5.arrays import StoredArray
from weight_port.readers import open_weights


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    """The bytes of a small model in every format that Keras writes now."""
    return saved_by_keras(in_keras(nested), tmp_path_factory.mktemp("contents"))


@pytest.fixture
def write(contents, tmp_path):
    """Writes such a file, its bytes changed."""

    def write_changed(suffix, change=lambda content: content):
        path = tmp_path / f"model{suffix}"
        path.write_bytes(change(contents[suffix]))
        return path

    return write_changed


def load_nested(path):
    return load_weights(path, ours(nested))


def check_refused(path, *calls, says=""):
    """Every call raises a WeightError that names the file and says something, the first of them `says`."""
    for call in calls or (load_nested, read_config):
        with pytest.raises(WeightError) as caught:
            call(path)
        message = str(caught.value)
        assert str(path) in message
        assert len(message) > len(str(path)) + 20
        assert says in message
        says = ""


@pytest.mark.parametrize("kept", [0.01, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_truncated_files(suffix, kept, write):
    path = write(suffix, lambda content: content[: int(len(content) * kept)])
    check_refused(path, says="" if suffix == ".keras" else f"{path.stat().st_size:,} bytes")


PYTORCH = {"archive/data.pkl": b"\x80\x02}q\x00.", "archive/data/0": bytes(64), "archive/version": b"3\n"}


def write_archive(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize(
    "content",
    [b"", b"P", b"PK", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n", b"\x89HDF", b"not a weights file\n" * 9, bytes(4096)],
    ids=["empty", "P", "PK", "zip magic", "HDF5 magic", "half of it", "text", "zeros"],
)
def test_files_of_other_kinds(content, tmp_path):
    path = tmp_path / "model.h5"
    path.write_bytes(content)
    check_refused(path)


def test_archive_of_pytorch(tmp_path):
    path = write_archive(tmp_path / "model.pt", PYTORCH)
    check_refused(path, says="archive/data.pkl")


def test_hdf5_without_keras_inside(tmp_path):
    path = tmp_path / "data.h5"
    with h5py.File(path, "w") as file:
        file["images"] = np.zeros(3)
    check_refused(path, says="['images']")


def test_folder_in_place_of_a_file(tmp_path):
    check_refused(tmp_path)


@pytest.mark.parametrize("call", [load_nested, read_config, load_architecture])
def test_missing_file(call, tmp_path):
    path = tmp_path / "nowhere" / "model.keras"
    with pytest.raises(FileNotFoundError, match=str(path)):
        call(path)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
@pytest.mark.parametrize("place", [0.2, 0.5, 0.9])
def test_archive_with_a_changed_byte_inside_the_weights(place, compression, write):
    path = write(".keras")
    repack(path, compression)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("model.weights.h5")
    content[member.header_offset + 100 + int(place * (member.compress_size - 100))] ^= 0x10
    path.write_bytes(content)
    check_refused(path, load_nested)


@pytest.mark.parametrize(
    ("offset_in_directory", "value"),
    [
        (8, b"\x01\x00"),
        (10, b"\x63\x00"),
        (10, b"\x0e\x00"),
        (10, b"\x0c\x00"),
        (6, b"\xff\x00"),
        (42, b"\xf0\xff\xff\x7f"),
    ],
    ids=["encrypted", "unknown compression", "LZMA", "bzip2", "later version", "offset beyond the end"],
)
def test_archives_that_cannot_be_unpacked(offset_in_directory, value, write):
    """Entries of the central directory say what zipfile refuses in many ways."""

    def change(content):
        changed = bytearray(content)
        for name in (b"model.weights.h5", b"config.json"):
            start = content.rindex(name) - 46 + offset_in_directory
            changed[start : start + len(value)] = value
        return bytes(changed)

    check_refused(write(".keras", change))


@pytest.mark.parametrize(("member", "call"), [("model.weights.h5", load_nested), ("config.json", read_config)])
def test_archive_without_a_member(member, call, tmp_path, write):
    with zipfile.ZipFile(write(".keras")) as archive:
        members = {name: archive.read(name) for name in archive.namelist() if name != member}
    check_refused(write_archive(tmp_path / "part.keras", members), call)


def pop_and_set(group, name, value):
    del group[name]
    group[name] = value


LEGACY_DAMAGE = {
    "layer_names of a layer that is not there": lambda file: file.attrs.create("layer_names", [b"inner", b"gone"]),
    "layer_names in bytes that are no text": lambda file: file.attrs.create("layer_names", np.array([b"\xff\xfe"])),
    "layer_names of numbers": lambda file: file.attrs.create("layer_names", [1, 2]),
    "layer_names is one number": lambda file: file.attrs.create("layer_names", 3),
    "layer_names is empty": lambda file: file.attrs.create("layer_names", h5py.Empty("S8")),
    "weight_names to nowhere": lambda file: file["head"].attrs.create("weight_names", [b"head/kernel:0", b"gone"]),
    "weight_names to a group": lambda file: file["head"].attrs.create("weight_names", [b"head", b"head/bias:0"]),
    "weight_names is one number": lambda file: file["head"].attrs.create("weight_names", 1.5),
    "weight_names in bytes that are no text": lambda file: file["head"].attrs.create(
        "weight_names", np.array([b"\xff", b"\xfe"])
    ),
    "a layer is an array": lambda file: pop_and_set(file, "head", np.zeros(3, "float32")),
    "an array without a shape": lambda file: pop_and_set(file["head/head"], "bias:0", h5py.Empty("float32")),
    "an array of text": lambda file: pop_and_set(file["head/head"], "bias:0", np.array([b"a", b"b"])),
    "an array of records": lambda file: pop_and_set(file["head/head"], "bias:0", np.zeros(2, [("x", "f4")])),
    "an array of absurd size": lambda file: (
        file["head/head"].pop("bias:0"),
        file["head/head"].create_dataset("bias:0", (1 << 60,), "float32"),
    ),
    "a link to nowhere": lambda file: pop_and_set(file["head/head"], "bias:0", h5py.SoftLink("/gone")),
    "a link in a circle": lambda file: pop_and_set(file["head/head"], "bias:0", h5py.SoftLink("/head/head/bias:0")),
    "model_weights is an array": lambda file: file.create_dataset("model_weights", data=np.zeros(3)),
}


@pytest.mark.parametrize("damage", LEGACY_DAMAGE)
def test_malformed_legacy_files(damage, tmp_path):
    path = write_legacy(tmp_path / "weights.h5", rows(ours(nested)))
    with h5py.File(path, "a") as file:
        LEGACY_DAMAGE[damage](file)
    check_refused(path)


TREE_DAMAGE = {
    "layers is an array": lambda file: pop_and_set(file, "layers", np.zeros(3)),
    "an array that is a group": lambda file: (
        file["layers/dense/vars"].pop("0"),
        file.create_group("layers/dense/vars/0"),
    ),
    "an array without a number": lambda file: file["layers/dense"].move("vars/1", "vars/bias"),
    "an array without a shape": lambda file: pop_and_set(file["layers/dense/vars"], "1", h5py.Empty("float32")),
    "a name that is no text": lambda file: file["layers/dense/vars"].attrs.create("name", np.bytes_(b"\xff")),
    "a model inside itself": lambda file: file["layers/functional/layers"].__setitem__(
        "functional", file["layers/functional"]
    ),
    "a link to nowhere": lambda file: pop_and_set(file["layers"], "dense", h5py.SoftLink("/gone")),
}


@pytest.mark.parametrize("damage", TREE_DAMAGE)
def test_malformed_newer_files(damage, write):
    path = write(".weights.h5")
    with h5py.File(path, "a") as file:
        TREE_DAMAGE[damage](file)
    check_refused(path)


@pytest.mark.parametrize("suffix", [".weights.h5", ".h5"])
@pytest.mark.parametrize("kind", ["link", "storage", "link to a group"])
def test_weights_in_another_file_are_refused(kind, suffix, write, tmp_path):
    """A weights file from the internet must not make its reader open other files of the machine, as Keras has it."""
    path = write(suffix)
    (tmp_path / "secret").write_bytes(np.arange(2, dtype="float32").tobytes())
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["bias"] = np.zeros(2, "float32")
    with h5py.File(path, "a") as file:
        name = "model_weights/head/head/bias" if suffix == ".h5" else "layers/dense/vars/1"
        if kind == "link to a group":
            name = name.rsplit("/", 1)[0]
            with h5py.File(tmp_path / "other.h5", "a") as other:
                file.copy(name, other, "bias_group")
        del file[name]
        if kind == "link":
            file[name] = h5py.ExternalLink(str(tmp_path / "other.h5"), "bias")
        elif kind == "link to a group":
            file[name] = h5py.ExternalLink(str(tmp_path / "other.h5"), "bias_group")
        else:
            file.create_dataset(name, (2,), "float32", external=[(str(tmp_path / "secret"), 0, 8)])
    check_refused(path, load_nested, says="stored in another file")


CONFIGS = {
    "no JSON": b"{",
    "no text": b"\xff\xfe{}",
    "a list": b"[]",
    "a number": b"1",
    "nothing": b"",
    "too deep": b"[" * 100_000,
}


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("config", CONFIGS)
def test_malformed_configurations(config, suffix, tmp_path):
    path = tmp_path / f"model{suffix}"
    if suffix == ".keras":
        write_archive(path, {"config.json": CONFIGS[config]})
    else:
        with h5py.File(path, "w") as file:
            file.attrs["model_config"] = np.void(CONFIGS[config]) if b"\xff" in CONFIGS[config] else CONFIGS[config]
    check_refused(path, read_config, load_architecture)


def test_configuration_that_is_no_text(tmp_path):
    with h5py.File(tmp_path / "model.h5", "w") as file:
        file.attrs["model_config"] = 5
    check_refused(tmp_path / "model.h5")


def test_oversized_configuration(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "CONFIG_LIMIT", 1000)
    path = write_archive(tmp_path / "model.keras", {"config.json": json.dumps({"x": "y" * 2000})}, zipfile.ZIP_DEFLATED)
    check_refused(path, read_config, says="1,000 bytes")


@pytest.mark.parametrize("make", ["weights.h5", "legacy"])
def test_files_of_weights_only_have_no_configuration(make, write, tmp_path):
    path = write(".weights.h5") if make == "weights.h5" else write_legacy(tmp_path / "w.h5", rows(ours(plain)))
    with pytest.raises(WeightError, match="holds no model configuration: build the network and use load_weights"):
        read_config(path)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_configuration_of_whole_models(suffix, write):
    config = read_config(write(suffix))
    assert config["class_name"] == "Functional"
    assert [layer["config"]["name"] for layer in config["config"]["layers"]][-1] == "head"


@cache
def expected_shapes():
    return jax.tree.map(lambda array: array.shape, flaxapps.Model.init_variables(ours(nested)))


def check_outcome(path):
    """Refused by name, or what is given is of the right shapes."""
    for call in (load_nested, read_config):
        try:
            given = call(path)
        except WeightError as error:
            if str(path) not in str(error):
                raise
            continue
        if call is load_nested:
            assert jax.tree.map(lambda array: array.shape, given) == expected_shapes()


@pytest.mark.filterwarnings("ignore")  # of NumPy and zipfile, about what they find
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_random_bytes_changed(suffix, contents, tmp_path):
    source, content = random.Random(suffix), contents[suffix]
    path = tmp_path / f"model{suffix}"
    for _ in range(60):
        place, value = source.randrange(len(content)), source.randrange(1, 256)
        path.write_bytes(content[:place] + bytes([content[place] ^ value]) + content[place + 1 :])
        check_outcome(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_random_truncations(suffix, contents, tmp_path):
    source, content = random.Random(suffix), contents[suffix]
    path = tmp_path / f"model{suffix}"
    for _ in range(30):
        path.write_bytes(content[: source.randrange(len(content))])
        check_refused(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_arrays_are_float32_contiguous_and_aligned(suffix, write):
    for array in jax.tree.leaves(load_nested(write(suffix))):
        assert isinstance(array, np.ndarray)
        assert array.dtype == np.float32
        assert array.flags.c_contiguous
        assert array.flags.writeable
        assert array.ctypes.data % 64 == 0


def test_stored_archives_are_read_in_place(tmp_path):
    """Twelve megabytes inside, half of them wanted: no copy of the whole is made."""
    with h5py.File(tmp_path / "inside.h5", "w") as file:
        file["layers/dense/vars/0"] = np.ones((1000, 1500), "float32")
        file["layers/dense_1/vars/0"] = np.ones((1000, 1500), "float32")
    stored, deflated = tmp_path / "stored.keras", tmp_path / "deflated.keras"
    content = (tmp_path / "inside.h5").read_bytes()
    write_archive(stored, {"metadata.json": "{}", "model.weights.h5": content})
    write_archive(deflated, {"metadata.json": "{}", "model.weights.h5": content}, zipfile.ZIP_DEFLATED)
    peaks = []
    for path in (stored, deflated):
        tracemalloc.start()
        with open_weights(path) as file:
            array = file.arrays[("dense",), 0].read()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        np.testing.assert_array_equal(array, np.ones((1000, 1500)))
    assert peaks[0] < 8e6 < 12e6 < peaks[1]


def test_arrays_are_read_when_asked_for(write, monkeypatch):
    monkeypatch.setattr(StoredArray, "read", lambda stored: pytest.fail(f"{stored} was read"))
    with open_weights(write(".weights.h5")) as file:
        assert file.arrays[("functional", "conv2d"), 0].shape == (3, 3, 3, 4)
        assert file.names["functional", "conv2d"] == "conv"


def test_the_name_of_a_file_does_not_matter(write, contents, tmp_path):
    for suffix in SUFFIXES:
        path = tmp_path / "weights.dat"
        path.write_bytes(contents[suffix])
        assert_same(load_nested(path), load_nested(write(suffix)))


def test_needs_no_jax_and_no_keras():
    """In an interpreter where they cannot be imported, weights are read all the same."""
    code = (
        "import sys\n"
        "for name in ('jax', 'flax', 'flaxapps', 'train', 'keras'): sys.modules[name] = None\n"
        "import weight_port\n"
        "print(weight_port.load_weights.__module__)"
    )
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT).stdout
    assert output == "weight_port.loading\n"
