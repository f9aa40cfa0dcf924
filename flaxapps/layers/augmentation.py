"""Random augmentation: outside training the identity, and inside refused.

Keras runs these layers inside the network. Here they belong before it, into the data or the train step, where they do
not stand in the way of compilation, caching and reproducible keys; imported networks keep them for what they say.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax

from flaxapps.batch import Batch
from flaxapps.layers.shapes import Window, check_images
from flaxapps.recording import Layer, Shape, Weights

Factor = float | Sequence[float] | None


class Augmentation(Layer):
    """What the random layers share: the identity outside training, an error in it."""

    def output_shape(self, *shapes: Shape) -> Shape:
        """Unchanged."""
        return check_images(shapes[0])

    def call(self, weights: Weights, *inputs: jax.Array) -> jax.Array:
        """The identity."""
        return inputs[0]

    def call_training(  # noqa: D102 (as in Layer)
        self, weights: Weights, *inputs: jax.Array, make_key: Callable[[], jax.Array], batch: Batch
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        raise ValueError(
            f"{self.class_name} is the identity outside training and does not augment inside a network. Augment the "
            "images in the data pipeline or in the train step, and train the network without this layer or with "
            "training=False at its call."
        )


@dataclass(frozen=True)
class _ColorAugmentation(Augmentation):
    factor: Factor = 0.0
    value_range: Sequence[float] = (0, 255)


@dataclass(frozen=True)
class _ShiftingAugmentation(Augmentation):
    fill_mode: str = "reflect"
    interpolation: str = "bilinear"
    fill_value: float = 0.0


@dataclass(frozen=True)
class _MixingAugmentation(Augmentation):
    value_range: Sequence[float] = (0, 255)
    factor: Factor = 0.0
    interpolation: str = "bilinear"


@dataclass(frozen=True)
class AugMix(_MixingAugmentation):
    """Chains of augmentations, mixed."""

    num_chains: int = 3
    chain_depth: int = 3
    alpha: float = 1.0
    all_ops: bool = True


@dataclass(frozen=True)
class CutMix(Augmentation):
    """Patches from other images of the batch."""

    factor: Factor = 1.0


@dataclass(frozen=True)
class MixUp(Augmentation):
    """Blends with other images of the batch."""

    alpha: float = 0.2


@dataclass(frozen=True)
class RandAugment(_MixingAugmentation):
    """A few operations drawn from a list."""

    num_ops: int = 2


@dataclass(frozen=True)
class RandomBrightness(_ColorAugmentation):
    """Brighter or darker."""


@dataclass(frozen=True)
class RandomColorDegeneration(_ColorAugmentation):
    """Towards grey."""


@dataclass(frozen=True)
class RandomColorJitter(Augmentation):
    """Brightness, contrast, saturation and hue."""

    value_range: Sequence[float] = (0, 255)
    brightness_factor: Factor = None
    contrast_factor: Factor = None
    saturation_factor: Factor = None
    hue_factor: Factor = None


@dataclass(frozen=True)
class RandomContrast(_ColorAugmentation):
    """More or less contrast."""


@dataclass(frozen=True)
class RandomCrop(Augmentation):
    """Crops in training.

    Keras's documentation promises a central crop, resized, at inference; Keras 3 returns the image as it is, of the
    size it has, and only says that its shape is the smaller one. So does this layer.
    """

    height: int
    width: int

    def output_shape(self, *shapes: Shape) -> Shape:
        """What Keras says it is; arrays of another size keep theirs."""
        batch, _, _, channels = check_images(shapes[0])
        return (batch, self.height, self.width, channels)


@dataclass(frozen=True)
class RandomElasticTransform(_ShiftingAugmentation):
    """Bends."""

    factor: Factor = 1.0
    scale: Factor = 1.0
    value_range: Sequence[float] = (0, 255)


@dataclass(frozen=True)
class RandomErasing(_ColorAugmentation):
    """Blots out rectangles."""

    scale: Factor = (0.02, 0.33)
    fill_value: float | Sequence[float] | None = None


@dataclass(frozen=True)
class RandomFlip(Augmentation):
    """Mirrors."""

    mode: str = "horizontal_and_vertical"


@dataclass(frozen=True)
class RandomGaussianBlur(_ColorAugmentation):
    """Blurs."""

    kernel_size: Window = 3
    sigma: Factor = 1.0


@dataclass(frozen=True)
class RandomGrayscale(Augmentation):
    """Takes the colours away."""

    factor: Factor = 0.5


@dataclass(frozen=True)
class RandomHue(_ColorAugmentation):
    """Other colours."""


@dataclass(frozen=True)
class RandomInvert(_ColorAugmentation):
    """Negatives."""


@dataclass(frozen=True)
class RandomPerspective(Augmentation):
    """Tilts."""

    factor: Factor = 1.0
    scale: Factor = 1.0
    interpolation: str = "bilinear"
    fill_value: float = 0.0


@dataclass(frozen=True)
class RandomPosterization(_ColorAugmentation):
    """Fewer tones."""


@dataclass(frozen=True)
class RandomRotation(_ShiftingAugmentation):
    """Turns."""

    factor: Factor = 0.0


@dataclass(frozen=True)
class RandomSaturation(_ColorAugmentation):
    """Paler or more colourful."""


@dataclass(frozen=True)
class RandomSharpness(_ColorAugmentation):
    """Sharper or softer."""


@dataclass(frozen=True)
class RandomShear(_ShiftingAugmentation):
    """Slants."""

    x_factor: Factor = 0.0
    y_factor: Factor = 0.0


@dataclass(frozen=True)
class RandomTranslation(_ShiftingAugmentation):
    """Shifts."""

    height_factor: Factor = 0.0
    width_factor: Factor = 0.0


@dataclass(frozen=True)
class RandomZoom(_ShiftingAugmentation):
    """Enlarges or shrinks."""

    height_factor: Factor = 0.0
    width_factor: Factor = None


@dataclass(frozen=True)
class Solarization(Augmentation):
    """Inverts what is above a threshold."""

    addition_factor: Factor = 0.0
    threshold_factor: Factor = 0.0
    value_range: Sequence[float] = (0, 255)
