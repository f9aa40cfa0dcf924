"""New classifiers on the features of another model, and which of its layers to freeze under them."""

from collections.abc import Iterable, Sequence

from flaxapps import layers
from flaxapps.graph import LayerInGraph
from flaxapps.layers import Functional
from flaxapps.model import Model
from flaxapps.recording import Node
from train.masks import frozen_layers


def feature_node(model: Model, layer: str | None = None) -> Node:
    """Where a new classifier goes: the output of a layer, or else the last feature map of the model.

    Args:
        model: A model of one input.
        layer: Name of the layer.

    Raises:
        ValueError: There is no such layer, or its output is neither a feature map nor a row of features; no layer
            gives a feature map.

    >>> x = layers.Input((8, 8, 3))
    >>> y = layers.Conv2D(4, 3, name="stem")(x)
    >>> model = Model(x, layers.Dense(5)(layers.GlobalAveragePooling2D()(y)))
    >>> feature_node(model).shape
    (None, 6, 6, 4)
    """
    nodes = [model.get_layer(layer).output] if layer else [each.output for each in reversed(model.layers[1:])]
    ranks = (2, 4) if layer else (4,)
    for node in nodes:
        if isinstance(node, Node) and len(node.shape) in ranks:
            return node
    raise ValueError(
        f"The output of {layer!r} is no feature map and no row of features"
        if layer
        else f"{model.name!r} has no layer that gives a feature map: name the layer to build on"
    )


def put_head(
    features: Node, image: Node, classes: int, units: int = 1024, *, dropout: float = 0.0, name: str | None = None
) -> Model:
    """A model with a new classifier: global average pooling, a hidden layer, and softmax over the classes.

    Args:
        features: A feature map (4D), which is pooled, or a row of features (2D).
        image: The input of the model.
        classes: How many classes.
        units: Width of the hidden layer, which is Dense with relu; 0 for none.
        dropout: Share of the values before the last layer that is dropped in training, below 1.
        name: Of the model.

    >>> image = layers.Input((8, 8, 3))
    >>> [layer.name for layer in put_head(layers.Conv2D(4, 3)(image), image, classes=5).layers]
    ['input_layer', 'conv2d', 'global_average_pooling2d', 'dense', 'dense_1']
    """
    x = layers.GlobalAveragePooling2D()(features) if len(features.shape) == 4 else features
    if units:
        x = layers.Dense(units, activation="relu")(x)
    if dropout:
        x = layers.Dropout(dropout)(x)
    return Model(image, layers.Dense(classes, activation="softmax")(x), name=name)


def frozen_until(model: Model, until: int | str) -> frozenset[str]:
    """The layers up to one, which may be inside a nested model: "outer/inner"; or those before an index.

    Args:
        model: The model.
        until: As `frozen_layers` takes it, or a path into nested models.

    Raises:
        ValueError: There is no such layer, or no parameter would train.

    >>> inside, image = layers.Input((8, 8, 3)), layers.Input((8, 8, 3))
    >>> trunk = Model(inside, layers.Conv2D(4, 3, name="b")(layers.Conv2D(4, 3, name="a")(inside)), name="trunk")
    >>> model = Model(image, layers.Dense(2)(layers.GlobalAveragePooling2D()(trunk(image))))
    >>> sorted(frozen_until(model, "trunk/a"))
    ['input_layer', 'trunk/a', 'trunk/input_layer']
    """
    if isinstance(until, int) or "/" not in until:
        return frozen_layers(model, until=until)
    return frozen_layers(model, names=_names_until(model.layers, until.split("/")))


def _names_until(places: Iterable[LayerInGraph], path: Sequence[str], above: str = "") -> list[str]:
    names = []
    for place in places:
        if place.name != path[0]:
            names.append(above + place.name)
        elif len(path) == 1:
            return [*names, above + place.name]
        elif isinstance(place.layer, Functional):
            return [*names, *_names_until(place.layer.layers, path[1:], f"{above}{place.name}/")]
    raise ValueError(f"There is no layer {above + '/'.join(path)!r}")
