"""Network functions such as `VGG16`: shared signature and docstring, building, and loading of variables."""

import inspect
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType, SimpleNamespace
from typing import Any, Protocol, TypeVar, overload

import jax

import weight_port
from flaxapps import layers
from flaxapps.applications.arguments import (
    check_both_shapes,
    check_data_format,
    check_dtype,
    check_head,
    check_input_shape,
    check_input_tensor,
    check_variant,
    check_weights,
    resolve_rows,
)
from flaxapps.applications.imagenet_utils import PREPROCESSING
from flaxapps.applications.info import ModelInfo
from flaxapps.graph.graph import source_inputs
from flaxapps.graph.symbolic import Node
from flaxapps.model import Model, Network, load_variables

ClassifierActivation = str | Callable[[jax.Array], jax.Array] | None
ImageShape = Sequence[int | None]
Weights = str | os.PathLike[str] | None


@dataclass(frozen=True)
class Architecture:
    """Layout of one network.

    Attributes:
        features: Maps an image node to the last feature map.
        classifier: Maps the feature map, the number of classes and an activation to the predictions.
        pooling_names: Names of the layers that pooling="avg" and pooling="max" add; None for automatic names.
        ending: Maps the pooled features, or the feature map, to the output without the classifier.
        alpha: Factor of the numbers of filters, part of the name of the model.
        published: Variant of the published weights, with {rows} where it depends on the image size.
        measures_input_tensor: Whether `input_tensor` decides on the image size of the published weights, and has to
            agree with `input_shape`.
    """

    features: Callable[[Node], Node]
    classifier: Callable[[Node, int, ClassifierActivation], Node]
    pooling_names: tuple[str | None, str | None] = (None, None)
    ending: Callable[[Node], Node] | None = None
    alpha: float = 1.0
    published: str = ""
    measures_input_tensor: bool = False


# An architecture, or a function that makes one from the arguments of the family and from those of all networks that it
# names, such as `weights`.
Layout = Architecture | Callable[..., Architecture]


def pooled_classifier(x: Node, classes: int, activation: ClassifierActivation) -> Node:
    """Applies global average pooling and one dense layer, the classifier of most networks."""
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    return layers.Dense(classes, activation=activation, name="predictions")(x)


class NetworkFunction(Protocol):
    """Type of the network functions.

    Attributes:
        info: Facts about the network.
        architectures: Layouts by name of the variant; "" is the one Keras builds today.
    """

    info: ModelInfo
    architectures: Mapping[str, Layout]
    __name__: str

    def __call__(self, *args: Any, **kwargs: Any) -> Network:
        """Build the network and get its variables; `Application` and the families define the arguments."""
        ...


class Application(NetworkFunction, Protocol):
    """Type of the network functions without arguments of their own."""

    def __call__(
        self,
        include_top: bool = True,
        weights: Weights = "imagenet",
        input_tensor: Node | None = None,
        input_shape: ImageShape | None = None,
        pooling: str | None = None,
        classes: int = 1000,
        classifier_activation: ClassifierActivation = "softmax",
        name: str | None = None,
        *,
        variant: str = "",
        data_format: str | None = None,
        dtype: str | None = None,
        min_size: int | None = None,
        seed: int = 0,
    ) -> Network:
        """Build the network and get its variables.

        Args:
            include_top: Whether to add the classifier to the features.
            weights: None (Keras's initializers), "imagenet" (downloaded once, verified, cached), or the path of a file.
            input_tensor: A Node to use as the image, in place of a new Input.
            input_shape: Shape of one image, for example (200, 200, 3). None takes the default size with the
                classifier, and leaves the size free without it, as do None dimensions.
            pooling: Without the classifier: None for the feature map (4D), "avg" or "max" for a vector per image.
            classes: Number of classes of the classifier; 1000 for "imagenet".
            classifier_activation: Activation of the classifier; None returns logits.
            name: Name of the model; None takes Keras's. `preprocess=True` knows networks by it.
            variant: "" for the network Keras builds today. ResNet50 also has "keras2", the network of Keras 2.0 and of
                the weights of 2016 (layers res2a_branch2a, ...). The weight files of the two are not interchangeable.
            data_format: Layout of images: "channels_last", "channels_first", or None for keras.json's.
            dtype: Compute dtype such as "bfloat16"; parameters and statistics stay float32. None takes keras.json's
                floatx.
            min_size: Smallest accepted image size in pixels, in place of the documented one.
            seed: Seed of the initializers if weights is None.

        Returns:
            Network(model, variables).

        Raises:
            ValueError: An argument is not allowed, alone or with the others; the message gives the allowed values.
            WeightError: The weights cannot be downloaded or read, or do not fit the network.
        """
        ...


FunctionT = TypeVar("FunctionT", bound=NetworkFunction)


@overload
def application(info: ModelInfo, architecture: Layout, variants: Mapping[str, Layout] = ...) -> Application: ...


@overload
def application(
    info: ModelInfo, architecture: Layout, variants: Mapping[str, Layout] = ..., *, signature: type[FunctionT]
) -> FunctionT: ...


def application(
    info: ModelInfo,
    architecture: Layout,
    variants: Mapping[str, Layout] = MappingProxyType({}),
    *,
    signature: type[NetworkFunction] = Application,
) -> NetworkFunction:
    """Creates the function of a network.

    Args:
        info: Facts about the network; `info.function` and `info.module` become the function's name and module.
        architecture: The layout Keras builds today.
        variants: Other layouts under the same name, such as that of older weight files.
        signature: Protocol whose `__call__` has the arguments of the function, and documents those that `Application`
            does not have.

    Returns:
        A function with the signature of the protocol, and a docstring of all its arguments.
    """
    architectures = MappingProxyType({"": architecture} | dict(variants))
    arguments = inspect.signature(signature.__call__)
    arguments = arguments.replace(parameters=list(arguments.parameters.values())[1:])  # without `self`

    def build(*args: Any, **kwargs: Any) -> Network:
        given = _bind(info, arguments, args, kwargs)
        model, published = _build(info, architectures, given)
        return Network(model, _load(info, model, published, given))

    summary, _, sections = (inspect.getdoc(Application.__call__) or "").partition("\n")
    _, _, rest = sections.partition("\n\nReturns:")
    documented = _argument_docs(Application) | _argument_docs(signature)
    default = "of any size" if info.any_size else f"{info.default_size} x {info.default_size}"
    build.__name__ = build.__qualname__ = info.function
    build.__module__ = info.module
    build.__doc__ = (
        f"{info.function}, the network of {info.reference}.\n\n"
        f"{summary} Images are {default} by default and at least "
        f"{info.min_size} x {info.min_size},\npreprocessed by `{info.module}.preprocess_input` "
        f"({PREPROCESSING[info.preprocessing]}).\n\nArgs:\n"
        + "".join(f"    {name}: {documented[name]}\n" for name in arguments.parameters)
        + f"\nReturns:{rest}"
    )
    function: Any = build
    function.__signature__ = arguments
    function.info = info
    function.architectures = architectures
    made: NetworkFunction = function
    return made


def _argument_docs(signature: type[NetworkFunction]) -> dict[str, str]:
    """Returns the descriptions of the arguments in the docstring of a protocol, by name."""
    _, _, text = (inspect.getdoc(signature.__call__) or "").partition("Args:\n")
    text, _, _ = text.partition("\n\nReturns:")
    entries = re.split(r"^ {4}(?=\w)", text, flags=re.MULTILINE)[1:]
    return {name: description.rstrip() for name, _, description in (entry.partition(": ") for entry in entries)}


def build_model(network: NetworkFunction, **arguments: Any) -> Model:
    """Builds the model of a network, without arrays.

    Args:
        network: The function of the network.
        **arguments: Its arguments. `weights` are not loaded, but some checks depend on them; they default to None.

    Raises:
        TypeError: The network does not take an argument.
        ValueError: An argument is not allowed, alone or with the others; the message gives the allowed values.
    """
    model, _ = build_lazily(network, **{"weights": None, **arguments})
    return model


def build_lazily(network: NetworkFunction, **arguments: Any) -> tuple[Model, Callable[[], dict[str, Any]]]:
    """Builds the model of a network, and a function that initializes, loads or downloads its variables.

    Args:
        network: The function of the network.
        **arguments: Its arguments.

    Raises:
        TypeError: The network does not take an argument.
        ValueError: An argument is not allowed, alone or with the others; the message gives the allowed values.
    """
    given = _bind(network.info, inspect.signature(network), (), arguments)
    model, published = _build(network.info, network.architectures, given)
    return model, partial(_load, network.info, model, published, given)


def _bind(
    info: ModelInfo, signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> SimpleNamespace:
    """Returns all arguments of a network's function by name, with its defaults."""
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{info.function}() {error}") from None
    bound.apply_defaults()
    return SimpleNamespace(**bound.arguments)


def _build(info: ModelInfo, architectures: Mapping[str, Layout], given: SimpleNamespace) -> tuple[Model, str]:
    """Builds the model, and resolves the variant of its published weights."""
    check_variant(info, given.variant, architectures)
    check_weights(given.weights, given.include_top, given.classes)
    check_head(given.pooling, given.classifier_activation, given.weights, given.include_top)
    check_dtype(given.dtype)
    data_format = check_data_format(info, given.data_format)
    architecture = _chosen(architectures[given.variant], given)
    shape = check_input_shape(
        info,
        given.input_shape,
        data_format=data_format,
        include_top=given.include_top,
        weights=given.weights,
        min_size=given.min_size,
    )
    sizes = shape[1:] if data_format == "channels_first" else shape[:2]
    if given.input_tensor is None:
        image = layers.Input(shape, dtype=given.dtype, data_format=data_format)
    else:
        image = check_input_tensor(given.input_tensor, given.dtype)
        if architecture.measures_input_tensor:
            sizes = check_both_shapes(info, given.input_shape and sizes, image, given.include_top)
    rows = resolve_rows(info, sizes, given.weights)
    output = architecture.features(image)
    if given.include_top:
        output = architecture.classifier(output, given.classes, given.classifier_activation)
    elif given.pooling == "avg":
        output = layers.GlobalAveragePooling2D(name=architecture.pooling_names[0])(output)
    elif given.pooling == "max":
        output = layers.GlobalMaxPooling2D(name=architecture.pooling_names[1])(output)
    if not given.include_top and architecture.ending:
        output = architecture.ending(output)
    sources = source_inputs(image)
    name = given.name or (info.keras_name or info.name).format(alpha=architecture.alpha, rows=rows)
    model = Model(sources[0] if len(sources) == 1 else sources, output, name=name)
    return model, given.variant or architecture.published.format(rows=rows)


def _chosen(layout: Layout, given: SimpleNamespace) -> Architecture:
    """Returns the architecture for these weights and the arguments of the family."""
    if isinstance(layout, Architecture):
        return layout
    shared, wanted = inspect.signature(Application.__call__).parameters, inspect.signature(layout).parameters
    return layout(**{name: value for name, value in vars(given).items() if name in wanted or name not in shared})


def _load(info: ModelInfo, model: Model, published: str, given: SimpleNamespace) -> dict[str, Any]:
    weights = given.weights
    if weights is None:
        return model.init_variables(given.seed)
    if weights == "imagenet":
        size = 4 * model.count_params()  # bytes, as published weights are float32
        weights = weight_port.fetch(info.name, include_top=given.include_top, variant=published, expected_size=size)
    return load_variables(weights, model)
