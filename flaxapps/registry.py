"""What is known about each network: sizes, preprocessing, published accuracy, weight files, licences."""

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from weight_port.published import PUBLISHED_FILES, PublishedFile

if TYPE_CHECKING:
    from flaxapps.model import Model
    from flaxapps.network import Network

# Modules that define a network: INFO, the function it names, and ARCHITECTURES by variant. Order of `list_models`.
MODULES = ("xception", "vgg16", "vgg19", "resnet50", "inception_v3")


@dataclass(frozen=True)
class ModelInfo:
    """Facts about one network.

    Attributes:
        name: Name of the module, of the model and of its weight files.
        function: Name of the function that builds it.
        default_size: Height and width of its images where nothing else is asked for, in pixels.
        min_size: Smallest height and width documented, in pixels.
        possible_size: Smallest height and width the layers allow, which `min_size=` can lower the check to.
        preprocessing: What `preprocess_input` does: "caffe" or "tf".
        parameters: Number of parameters with the classifier.
        depth: Number of layers as published by Keras.
        top1: Published top-1 accuracy on the ILSVRC2012 validation set, in percent.
        top5: The same for top-5.
        reference: The paper.
        channels_first: Whether the network takes channels_first images.
    """

    name: str
    function: str
    default_size: int
    min_size: int
    possible_size: int
    preprocessing: str
    parameters: int
    depth: int
    top1: float
    top5: float
    reference: str
    channels_first: bool = True

    @property
    def weight_files(self) -> tuple[PublishedFile, ...]:
        """The published weight files, each with address, hash, size and licence."""
        return tuple(file for file in PUBLISHED_FILES if file.network == self.name)


def list_models() -> list[str]:
    """Names that `get_model` and the command line know.

    >>> list_models()
    ['xception', 'vgg16', 'vgg19', 'resnet50', 'inception_v3']
    """
    return list(MODULES)


def model_info(name: str) -> ModelInfo:
    """Facts about a network.

    Args:
        name: One of `list_models()`.

    Returns:
        Sizes, preprocessing, published accuracy, weight files.

    Raises:
        ValueError: There is no such network.
    """
    if name not in MODULES:
        raise ValueError(f"No network is called {name!r}. There are: {', '.join(MODULES)}")
    info: ModelInfo = importlib.import_module(f"flaxapps.{name}").INFO
    return info


def get_model(name: str, **arguments: Any) -> "Network":
    """Builds a network by name: `get_model("vgg16", include_top=False)` is `VGG16(include_top=False)`.

    Args:
        name: One of `list_models()`.
        **arguments: Arguments of the network's function.

    Returns:
        Network(model, variables).

    Raises:
        ValueError: There is no such network, or the arguments do not fit it.
    """
    info = model_info(name)
    network: Network = getattr(importlib.import_module(f"flaxapps.{name}"), info.function)(**arguments)
    return network


def build_model(name: str, *, variant: str = "", **arguments: Any) -> "Model":
    """Builds the model of a network by name, without any arrays.

    Args:
        name: One of `list_models()`.
        variant: "" or, for resnet50, "keras2".
        **arguments: Arguments of the network's function, other than seed; weights are not loaded.

    Raises:
        ValueError: There is no such network, or the arguments do not fit it.
    """
    from flaxapps.network import build_model

    info = model_info(name)
    architectures = importlib.import_module(f"flaxapps.{name}").ARCHITECTURES
    if variant not in architectures:
        raise ValueError(f"{name} has the variants {list(architectures)}, got {variant!r}")
    return build_model(info, architectures[variant], **arguments)
