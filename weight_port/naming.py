"""Keras's automatic layer names (keras/src/utils/naming.py), which files also use as group names."""

import itertools
import re
from collections.abc import Iterator


def snake_case(class_name: str) -> str:
    """The automatic name of a layer class.

    >>> snake_case("GlobalAveragePooling2D"), snake_case("Conv2D"), snake_case("PReLU")
    ('global_average_pooling2d', 'conv2d', 'p_re_lu')
    """
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", class_name))
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def automatic_names(class_name: str) -> Iterator[str]:
    """Yield the automatic names of a layer class in their order: `conv2d`, `conv2d_1`, ..."""
    base = snake_case(class_name)
    yield base
    yield from (f"{base}_{number}" for number in itertools.count(1))


def is_automatic(name: str, class_name: str) -> bool:
    """Whether the name may be automatic. Its number then depends on the session and does not identify the layer.

    >>> is_automatic("conv2d_7", "Conv2D"), is_automatic("block1_conv1", "Conv2D")
    (True, False)
    """
    return re.fullmatch(rf"{snake_case(class_name)}(_\d+)?", name) is not None
