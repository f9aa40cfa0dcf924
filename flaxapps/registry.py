"""Registry of the networks by name."""

import difflib
import fnmatch
import re
from types import MappingProxyType
from typing import Any

from flaxapps import catalogue
from flaxapps.applications import application
from flaxapps.applications.application import NetworkFunction
from flaxapps.applications.info import ModelInfo as ModelInfo
from flaxapps.model import Model, Network

# In the order of `list_models`: by family, the smallest first.
APPLICATIONS: tuple[NetworkFunction, ...] = tuple(
    sorted(
        (each for each in vars(catalogue).values() if hasattr(each, "architectures")),
        key=lambda each: (each.info.family, each.info.parameters),
    )
)


def _spelling(name: str) -> str:
    """A name without the differences between its spellings: "MobileNetV2" and "mobilenet-v2" are "mobilenetv2"."""
    return re.sub("[-_ ]", "", name.lower())


_BY_NAME = MappingProxyType({each.info.name: each for each in APPLICATIONS})
_BY_SPELLING = MappingProxyType(
    {_spelling(name): each for each in APPLICATIONS for name in (each.info.name, each.info.function)}
)


def list_models(pattern: str = "*") -> list[str]:
    """Returns the names of the networks, as for `get_model` and the command line.

    >>> list_models("vgg*")
    ['vgg16', 'vgg19']

    Args:
        pattern: Names to return, in any spelling, with `*`, `?` and `[...]` as in a shell.

    Returns:
        The names, by family.
    """
    forms = {pattern.lower(), _spelling(pattern)}
    return [
        name
        for name in _BY_NAME
        if any(fnmatch.fnmatchcase(spelled, form) for spelled in (name, _spelling(name)) for form in forms)
    ]


def model_info(name: str) -> ModelInfo:
    """Returns facts about a network.

    Args:
        name: One of `list_models()`, in any spelling.

    Returns:
        Sizes, preprocessing, published accuracy, weight files.

    Raises:
        ValueError: There is no such network.
    """
    return get_application(name).info


def find_info(model_name: str | None) -> ModelInfo | None:
    """Finds the network with this model name, here or in Keras; None for other models."""
    for each in APPLICATIONS:
        # The names of some hold width and image size: "mobilenet_{alpha:.2f}_{rows}".
        pattern = re.sub(r"\\{[^}]*\\}", r"[\\w.]+", re.escape(each.info.keras_name or each.info.name))
        if model_name and (model_name == each.info.name or re.fullmatch(pattern, model_name)):
            return each.info
    return None


def find_name(name: str) -> str | None:
    """Finds the network of a name in any spelling; None if there is none.

    >>> [find_name(name) for name in ("ResNet50", "resnet-50", "ResNet_50", "resnet5")]
    ['resnet50', 'resnet50', 'resnet50', None]
    """
    found = _BY_SPELLING.get(_spelling(name))
    return found.info.name if found else None


def suggestion(name: str) -> str:
    """Returns a sentence on the networks that are spelled almost like `name`; empty if there are none.

    >>> suggestion("mobilnet_v2")
    " Did you mean 'mobilenet_v2'?"
    """
    close = difflib.get_close_matches(_spelling(name), _BY_SPELLING, n=3, cutoff=0.8)
    best = [match for match in close if abs(len(match) - len(close[0])) < 1]
    names = dict.fromkeys(_BY_SPELLING[match].info.name for match in best)
    return f" Did you mean {' or '.join(map(repr, names))}?" if names else ""


def get_application(name: str) -> NetworkFunction:
    """Returns the function of a network.

    Args:
        name: One of `list_models()`, in any spelling.

    Raises:
        ValueError: There is no such network; the message suggests similar names.
    """
    if (found := _BY_SPELLING.get(_spelling(name))) is None:
        raise ValueError(f"No network is called {name!r}.{suggestion(name)} There are: {', '.join(_BY_NAME)}")
    return found


def get_model(name: str, /, **arguments: Any) -> Network:
    """Builds a network by name: `get_model("vgg16", include_top=False)` is `VGG16(include_top=False)`.

    Args:
        name: One of `list_models()`, in any spelling.
        **arguments: Arguments of the network's function, such as `name=` for the model.

    Returns:
        Network(model, variables).

    Raises:
        ValueError: There is no such network, or the arguments do not fit it.
    """
    return get_application(name)(**arguments)


def build_model(name: str, /, **arguments: Any) -> Model:
    """Builds the model of a network by name, without arrays.

    Args:
        name: One of `list_models()`, in any spelling.
        **arguments: Arguments of the network's function. Weights are not loaded.

    Raises:
        ValueError: There is no such network, or the arguments do not fit it.
    """
    return application.build_model(get_application(name), **arguments)
