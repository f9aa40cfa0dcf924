"""Models that end at an inner layer."""

import dataclasses

from flaxapps.layers import Functional
from flaxapps.model import Model


def cut_at(model: Model, layer: str) -> Model:
    """Returns the model that ends with a layer, also one inside a nested model. It takes the same variables.

    >>> from flaxapps import Input, layers
    >>> image = Input((8, 8, 3))
    >>> inner = Model(image, layers.Dense(2)(layers.Conv2D(4, 3, name="conv")(image)), name="trunk")
    >>> outer = Model(image, layers.Flatten()(inner(image)))
    >>> cut_at(outer, "trunk/conv").output_shape
    (None, 6, 6, 4)

    Args:
        model: The model.
        layer: Name of a layer; "outer/inner" for one of a nested model.

    Raises:
        ValueError: There is no such layer.
    """
    for found in model.layers:
        nested = found.layer
        if isinstance(nested, Functional) and layer.startswith(f"{found.name}/"):
            whole = Model(list(nested.graph.inputs), list(nested.graph.outputs))
            inside = cut_at(whole, layer.removeprefix(f"{found.name}/"))
            cut = dataclasses.replace(nested, graph=inside.graph)
            return Model(model.input, cut(list(found.calls[0].inputs)), name=model.name)
    return Model(model.input, model.get_layer(layer).output, name=model.name)
