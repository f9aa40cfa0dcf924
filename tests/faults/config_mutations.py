"""Ways to change a model's configuration: values of other kinds, parts gone, doubled, swapped, nested without end."""

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

Path = tuple[Any, ...]
KEYS = ("__proto__", "__class__", "__init__", "constructor", "self", "kind", "name", "x" * 10_000, "", "\x00", "config")
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 7, 1 << 31, -(1 << 31), 1 << 63, 10**30, 0.5, -0.0, 1e308, float("nan"),
    float("inf"), "", "same", "valid", "relu", "float16", "int8", "complex64", "no such thing", "../../etc/passwd",
    "__import__('os')", "\x00", "é" * 1000, [], [0], [-1, -1], [1, 2, 3, 4, 5], [[]], [None] * 5, [1 << 40, 1 << 40],
    {}, {"class_name": "Lambda", "config": {}}, {"class_name": "__keras_tensor__", "config": {"keras_history": ["x"]}},
    "x" * 100_000, "2.2.4", "3.0.0", "NaN", {"__proto__": {"filters": 1}}, [["source", 0, 0]], ["source", -1, 0], [{}],
)  # fmt: skip # kept on few lines on purpose


def paths(value: Any, above: Path = ()) -> Iterator[Path]:
    """Where everything in the configuration is."""
    if above:
        yield above
    if isinstance(value, dict):
        for key, part in value.items():
            yield from paths(part, (*above, key))
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from paths(part, (*above, number))


def at(value: Any, path: Path) -> Any:
    """What is at a place."""
    for key in path:
        value = value[key]
    return value


def one_change(config: Any, source: random.Random) -> tuple[object, Any]:
    """The configuration with one thing changed, and what."""
    changed = copy.deepcopy(config)
    everywhere = list(paths(changed))
    path, other = source.choice(everywhere), source.choice(everywhere)
    above, key = at(changed, path[:-1]), path[-1]
    change = source.choice(
        ("value", "value", "value", "gone", "doubled", "swapped", "like another", "nested", "key", "added", "same name")
    )
    if change == "value":
        above[key] = copy.deepcopy(source.choice(VALUES))
    elif change == "gone":
        del above[key]
    elif change == "doubled" and isinstance(above, list):
        above.insert(key, copy.deepcopy(above[key]))
    elif change == "swapped" and not (path[: len(other)] == other or other[: len(path)] == path):
        above[key], at(changed, other[:-1])[other[-1]] = at(changed, other), above[key]
    elif change == "like another":
        above[key] = copy.deepcopy(at(changed, other))
    elif change == "key" and isinstance(above, dict):
        above[source.choice(KEYS)] = above.pop(key)
        key = None
    elif change == "added" and isinstance(above, dict):
        key = source.choice(KEYS)
        above[key] = copy.deepcopy(source.choice(VALUES))
    elif change == "same name":
        names = [each for each in everywhere if each[-1] == "name" and isinstance(at(changed, each), str)]
        if names:
            path, other = source.choice(names), source.choice(names)
            at(changed, path[:-1])["name"] = at(changed, other)
        key = None
    else:
        above[key] = [above[key]] if source.random() < 0.5 else {"class_name": "Functional", "config": above[key]}
    return (change, path, str(above[key] if change == "value" else other)[:80]), changed


def changes(config: Any, source: random.Random) -> Iterator[tuple[object, str]]:
    """Without end: configurations with one to four changes, as JSON."""
    while True:
        labels, changed = [], config
        for _ in range(source.choice((1, 1, 1, 2, 4))):
            if not isinstance(changed, dict | list) or not any(True for _ in paths(changed)):
                break
            label, changed = one_change(changed, source)
            labels.append(label)
        yield labels, json.dumps(changed)


def broken_text(text: str, source: random.Random) -> tuple[object, str]:
    """The JSON itself damaged: cut, doubled in the middle, with odd signs in it."""
    start, size = source.randrange(len(text)), source.choice((1, 5, 50))
    inserted = source.choice(("", "\x00", "[", "{", '"', "\ud800", "1e999", "[" * 3000, "9" * 5000, text[:size]))
    return (start, size, inserted[:10]), text[:start] + inserted + text[start + size :]
