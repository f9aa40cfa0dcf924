"""Random augmentation layers: the identity outside training, an error in training.

Keras runs these layers inside the network. Here augmentation belongs in the data pipeline or the train step, where it
does not prevent compilation, caching and reproducible keys. Imported networks keep the layers for their configuration.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, make_dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import jax

from flaxapps.graph.batch import Batch
from flaxapps.graph.shapes import Window, check_images
from flaxapps.graph.symbolic import Layer, Shape, Weights

Factor = float | Sequence[float] | None


class Augmentation(Layer):
    """Base class of random augmentation: the identity outside training, an error in training.

    In Keras 3 some of the layers cast integers to floats (`makes_floats`), others do not.
    """

    if TYPE_CHECKING:  # the options differ by class, which type checkers do not see

        def __init__(self, *args: Any, **options: Any): ...

    def output_shape(self, *shapes: Shape) -> Shape:
        return check_images(shapes[0])

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        return inputs[0]

    def call_training(
        self, weights: Weights, *inputs: jax.Array, make_key: Callable[[], jax.Array], batch: Batch
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        raise ValueError(
            f"{self.class_name} is the identity outside training and does not augment inside a network. Augment the "
            "images in the data pipeline or in the train step, and train the network without this layer or with "
            "training=False at its call."
        )


@dataclass(frozen=True)
class RandomCrop(Augmentation):
    """Crops in training.

    Trap: Keras documents a resized central crop at inference. Keras 3 returns the image unchanged and only declares the
    cropped shape. So does this layer.
    """

    height: int
    width: int

    def output_shape(self, *shapes: Shape) -> Shape:
        """The shape Keras declares; arrays of another size keep theirs."""
        batch, _, _, channels = check_images(shapes[0])
        return (batch, self.height, self.width, channels)


# Types of the options; of others, and where the default is None, Factor.
_TYPES: Mapping[str, Any] = MappingProxyType(
    {
        "all_ops": bool, "alpha": float, "chain_depth": int, "fill_mode": str, "fill_value": float,
        "interpolation": str, "kernel_size": Window, "mode": str, "num_chains": int, "num_ops": int,
        "value_range": Sequence[float],
    }
)  # fmt: skip # kept on few lines on purpose


def _augmentation(name: str, summary: str, makes_floats: bool = False, **defaults: Any) -> type[Augmentation]:
    """Creates a class that differs from others only in its options, given with Keras's defaults in Keras's order."""
    options = [
        (option, Factor if default is None else _TYPES.get(option, Factor), field(default=default))
        for option, default in defaults.items()
    ]
    namespace = {"__module__": __name__, "__doc__": summary, "makes_floats": makes_floats}
    return make_dataclass(name, options, bases=(Augmentation,), namespace=namespace, frozen=True)


_COLOR: Mapping[str, Any] = MappingProxyType({"factor": 0.0, "value_range": (0, 255)})
_SHIFT: Mapping[str, Any] = MappingProxyType({"fill_mode": "reflect", "interpolation": "bilinear", "fill_value": 0.0})
_MIX: Mapping[str, Any] = MappingProxyType({"value_range": (0, 255), "factor": 0.0, "interpolation": "bilinear"})

AugMix = _augmentation(
    "AugMix", "Mixes chains of augmentations.", True, **_MIX, num_chains=3, chain_depth=3, alpha=1.0, all_ops=True
)
CutMix = _augmentation("CutMix", "Replaces patches by those of other images of the batch.", True, factor=1.0)
MixUp = _augmentation("MixUp", "Blends every image with another of the batch.", alpha=0.2)
RandAugment = _augmentation("RandAugment", "Applies a few random operations.", True, **_MIX, num_ops=2)
RandomBrightness = _augmentation("RandomBrightness", "Changes the brightness.", **_COLOR)
RandomColorDegeneration = _augmentation("RandomColorDegeneration", "Blends with the grayscale image.", **_COLOR)
RandomColorJitter = _augmentation(
    "RandomColorJitter",
    "Changes brightness, contrast, saturation and hue.",
    value_range=(0, 255),
    brightness_factor=None,
    contrast_factor=None,
    saturation_factor=None,
    hue_factor=None,
)
RandomContrast = _augmentation("RandomContrast", "Changes the contrast.", **_COLOR)
RandomElasticTransform = _augmentation(
    "RandomElasticTransform", "Distorts elastically.", True, **_SHIFT, factor=1.0, scale=1.0, value_range=(0, 255)
)
RandomErasing = _augmentation(
    "RandomErasing", "Erases rectangles.", True, **_COLOR, scale=(0.02, 0.33), fill_value=None
)
RandomFlip = _augmentation(
    "RandomFlip", "Flips horizontally, vertically or both.", True, mode="horizontal_and_vertical"
)
RandomGaussianBlur = _augmentation("RandomGaussianBlur", "Blurs.", True, **_COLOR, kernel_size=3, sigma=1.0)
RandomGrayscale = _augmentation("RandomGrayscale", "Converts to grayscale.", factor=0.5)
RandomHue = _augmentation("RandomHue", "Changes the hue.", **_COLOR)
RandomInvert = _augmentation("RandomInvert", "Inverts colours.", **_COLOR)
RandomPerspective = _augmentation(
    "RandomPerspective",
    "Changes the perspective.",
    True,
    factor=1.0,
    scale=1.0,
    interpolation="bilinear",
    fill_value=0.0,
)
RandomPosterization = _augmentation("RandomPosterization", "Reduces the bits per channel.", **_COLOR)
RandomRotation = _augmentation("RandomRotation", "Rotates.", True, **_SHIFT, factor=0.0)
RandomSaturation = _augmentation("RandomSaturation", "Changes the saturation.", **_COLOR)
RandomSharpness = _augmentation("RandomSharpness", "Changes the sharpness.", True, **_COLOR)
RandomShear = _augmentation("RandomShear", "Shears.", True, **_SHIFT, x_factor=0.0, y_factor=0.0)
RandomTranslation = _augmentation("RandomTranslation", "Shifts.", True, **_SHIFT, height_factor=0.0, width_factor=0.0)
RandomZoom = _augmentation("RandomZoom", "Zooms in or out.", True, **_SHIFT, height_factor=0.0, width_factor=None)
Solarization = _augmentation(
    "Solarization",
    "Inverts values above a threshold.",
    True,
    addition_factor=0.0,
    threshold_factor=0.0,
    value_range=(0, 255),
)
