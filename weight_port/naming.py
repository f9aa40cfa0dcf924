"""Keras's rule for automatic names (keras/src/utils/naming.py), which its files use as addresses too."""

import re


def snake_case(class_name: str) -> str:
    """The automatic name of a layer's class.

    >>> snake_case("GlobalAveragePooling2D"), snake_case("Conv2D"), snake_case("PReLU")
    ('global_average_pooling2d', 'conv2d', 'p_re_lu')
    """
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", class_name))
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def is_automatic(name: str, class_name: str) -> bool:
    """Whether Keras may have made up this name: then it says nothing, as it counts over a session.

    >>> is_automatic("conv2d_7", "Conv2D"), is_automatic("block1_conv1", "Conv2D")
    (True, False)
    """
    return re.fullmatch(rf"{snake_case(class_name)}(_\d+)?", name) is not None
