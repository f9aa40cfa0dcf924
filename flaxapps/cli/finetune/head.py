"""New classifiers on the features of another model."""

from flaxapps import layers
from flaxapps.graph.symbolic import Node
from flaxapps.model import Model


def feature_node(model: Model, layer: str | None = None) -> Node:
    """Finds the input of a new classifier: the output of a layer, or else the last feature map of the model.

    Raises:
        ValueError: The layer does not exist, its output is neither a feature map nor a feature vector, or no layer
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
        f"The output of {layer!r} is neither a feature map (4D) nor a feature vector (2D): name another layer"
        if layer
        else f"{model.name!r} has no layer that gives a feature map: name the layer to build on"
    )


def put_head(
    features: Node, image: Node, classes: int, units: int = 1024, *, dropout: float = 0.0, name: str | None = None
) -> Model:
    """Builds a model with a new classifier: global average pooling, a hidden layer, and softmax over the classes.

    Args:
        features: A feature map (4D), which is pooled, or a feature vector (2D).
        image: The input of the model.
        classes: Number of classes.
        units: Size of the hidden Dense layer with relu; 0 for none.
        dropout: Fraction of the values before the last layer that is dropped in training, below 1.
        name: Name of the model.

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
