"""Checks and properties of the normalized entries of a model."""

from collections.abc import Iterator, Mapping
from typing import Any

from flaxapps.saving.dialects.models import MODELS
from flaxapps.saving.dialects.structure import shown

Entry = Mapping[str, Any]
# Layers whose output depends on a mask.
USE_MASKS = (
    "AdditiveAttention", "Attention", "GlobalAveragePooling1D", "GroupedQueryAttention", "MultiHeadAttention",
    "Softmax", "TimeDistributed",
)  # fmt: skip # kept on few lines on purpose


def layer_name(entry: Entry) -> str:
    """The name of a layer.

    Raises:
        ValueError: The names in the entry and its configuration differ, or the name is not a string.
    """
    name = entry["config"]["name"]
    if not isinstance(name, str) or entry.get("name", name) != name:
        raise ValueError(f"A layer has two names: {shown(name)} and {shown(entry.get('name'))}")
    return name


def takes_whole_numbers(entry: Entry) -> bool:
    """Whether an input of a model, at any depth, has an integer dtype."""
    inputs = [each["config"] for each, _ in _entries_in(entry) if each["class_name"] == "InputLayer"]
    return any("int" in str(config.get("dtype")) for config in inputs)


def check_masks(entry: Entry, legacy: bool) -> None:
    """Refuse models in which Keras implicitly passes a mask of steps to a layer that uses it.

    Keras 3 stores masks as tensors in the calls of Functional models. Elsewhere the file does not record them.

    Args:
        entry: The normalized entry of a model.
        legacy: Whether a version before Keras 3 wrote it.

    Raises:
        ValueError: There are a source of masks and a layer that uses masks, and the file does not record the masks.
    """
    found = list(_entries_in(entry))
    sources = [each for each in found if each[0]["class_name"] == "Masking" or each[0]["config"].get("mask_zero")]
    users = [each for each in found if each[0]["class_name"] in USE_MASKS]
    if sources and users and (legacy or any(unsaid for _, unsaid in sources + users)):
        names = [layer_name(each) for each, _ in (sources[0], users[0])]
        raise ValueError(f"{names[0]} masks steps, which {names[1]} would leave out; masks are not imported")


def _entries_in(entry: Entry, in_sequence: bool = False) -> Iterator[tuple[Entry, bool]]:
    """Yield all layers of an entry, at any depth, and whether they are inside a Sequential model."""
    if entry["class_name"] in MODELS:
        for each in entry["config"]["layers"]:
            yield from _entries_in(each, in_sequence or entry["class_name"] == "Sequential")
    else:
        yield entry, in_sequence
