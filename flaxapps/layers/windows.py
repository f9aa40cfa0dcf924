"""What layers with a sliding window share."""

import dataclasses

from flaxapps.activations import get_activation
from flaxapps.layers.shapes import Window, check_images, pair
from flaxapps.recording import Layer, Shape


class WindowLayer(Layer):
    """What layers with a sliding window share: Keras's shorthands, and the size of the output."""

    padding: str

    def __post_init__(self) -> None:
        values = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        if "pool_size" in values and values["strides"] is None:
            values["strides"] = values["pool_size"]
        for name in {"kernel_size", "pool_size", "strides", "dilation_rate"} & set(values):
            object.__setattr__(self, name, pair(values[name]))
        object.__setattr__(self, "padding", values["padding"].lower())
        if self.padding not in ("valid", "same"):
            raise ValueError(f'padding is "valid" or "same", got {values["padding"]!r}')
        if isinstance(values.get("activation"), str):
            get_activation(values["activation"])

    def output_size(self, shape: Shape, window: Window, strides: Window, dilation: Window = 1) -> Shape:
        """Height and width of the output; None where the input's is free."""
        result: list[int | None] = []
        for size, length, stride, rate in zip(
            check_images(shape)[1:3], pair(window), pair(strides), pair(dilation), strict=True
        ):
            if size is None:
                result.append(None)
                continue
            span = rate * (length - 1) + 1
            result.append(-(-size // stride) if self.padding == "same" else (size - span) // stride + 1)
            if (result[-1] or 0) < 1:
                raise ValueError(f"The input is too small here: {size} pixels under a window of {span}")
        return tuple(result)
