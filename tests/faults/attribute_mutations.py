"""Ways to change what an HDF5 file of Keras says in attributes and names: other types, other lengths, other places."""

import io
import random
from collections.abc import Callable, Iterator
from typing import Any

import h5py
import numpy as np

VARIABLE = h5py.string_dtype()
# Values of every type that HDF5 has for attributes.
VALUES: dict[str, Callable[[], Any]] = {
    "an integer": lambda: 7,
    "a float": lambda: 0.5,
    "true": lambda: np.bool_(True),
    "integers": lambda: np.arange(3),
    "no floats": lambda: np.zeros(0),
    "nothing": lambda: h5py.Empty("S4"),
    "floats in a table": lambda: np.zeros((2, 2), "float32"),
    "text": lambda: "text",
    "no text": lambda: "",
    "bytes that are no text": lambda: np.bytes_(b"\xff\xfe\x00\x81"),
    "bytes with a null": lambda: np.bytes_(b"a\x00b"),
    "a list of texts": lambda: np.array(["a", "b"], VARIABLE),
    "a list of bytes": lambda: np.array([b"a", b"b"]),
    "a table of bytes": lambda: np.array([[b"a"], [b"b"]]),
    "a record": lambda: np.zeros(1, [("a", "i4"), ("b", "S3")]),
    "bytes of no type": lambda: np.void(b"\x01\x02"),
    "a choice": lambda: np.array(1, h5py.enum_dtype({"a": 1, "b": 2})),
    "a megabyte of text": lambda: "x" * (1 << 20),
    "names that lead elsewhere": lambda: np.array([b"../..", b"/", b"."]),
    "JSON": lambda: '{"class_name": "Sequential", "config": []}',
    "JSON that is a list": lambda: "[1, 2]",
    "another version": lambda: "9.9.9",
}


def holders(file: h5py.File) -> list[tuple[str, str]]:
    """Every attribute: where it is, and its name."""
    found = [("/", name) for name in file.attrs]
    file.visititems(lambda place, item: found.extend((place, name) for name in item.attrs))
    return found


def opened(content: bytes, change: Callable[[h5py.File], None]) -> bytes:
    """The file changed by hand."""
    stream = io.BytesIO(content)
    with h5py.File(stream, "a") as file:
        change(file)
    return stream.getvalue()


def other_types(content: bytes) -> Iterator[tuple[object, bytes]]:
    """Each attribute in turn with a value of each type, and gone."""
    with h5py.File(io.BytesIO(content), "r") as file:
        places = holders(file)
    for place, name in places:
        for kind, make in {**VALUES, "gone": None}.items():

            def change(
                file: h5py.File, place: str = place, name: str = name, make: Callable[[], Any] | None = make
            ) -> None:
                del file[place].attrs[name]
                if make is not None:
                    file[place].attrs[name] = make()

            yield (place, name, kind), opened(content, change)


def other_names(content: bytes, source: random.Random) -> Iterator[tuple[object, bytes]]:
    """Without end: names of layers or weights doubled, gone, in another order, with other signs in them."""
    with h5py.File(io.BytesIO(content), "r") as file:
        places = [(place, name) for place, name in holders(file) if name in ("layer_names", "weight_names")]
        lists = {place: [bytes(each) for each in np.asarray(file[place[0]].attrs[place[1]], "S")] for place in places}
    places = [place for place in places if lists[place]]
    while True:
        place = source.choice(places)
        names = list(lists[place])
        number = source.randrange(len(names))
        change = source.choice(("gone", "doubled", "reversed", "swapped", "other", "elsewhere"))
        if change == "gone":
            del names[number]
        elif change == "doubled":
            names.insert(number, names[number])
        elif change == "reversed":
            names.reverse()
        elif change == "swapped":
            other = source.randrange(len(names))
            names[number], names[other] = names[other], names[number]
        elif change == "other":
            names[number] += source.choice((b"_1", b":0", b"/", b"\\", "é".encode(), b"\xff"))
        else:
            others = [each for each in lists.values() if each]
            names[number] = source.choice(source.choice(others))

        def write(file: h5py.File, place: tuple[str, str] = place, names: list[bytes] = names) -> None:
            file[place[0]].attrs[place[1]] = np.array(names) if names else np.zeros(0)

        yield (*place, change, names[:6]), opened(content, write)
