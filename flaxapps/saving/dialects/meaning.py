"""Resolve options and classes whose meaning depends on the version of Keras."""

import warnings
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from flaxapps.layers.activations import keras2_hard_sigmoid
from flaxapps.layers.augmentation.geometry import FLIPS, SEPARATE_FLIPS
from flaxapps.saving.dialects.version import Version, warn_if_unknown

Config = Mapping[str, Any]
Entry = Mapping[str, Any]
Meaning = Callable[[Config, Version], "tuple[str, Config]"]


def with_meaning(entry: Entry, version: Version) -> Entry:
    """Make explicit in a layer's entry what its version implies.

    Args:
        entry: A layer, spelled as in Keras 3.
        version: The Keras that wrote it.

    Warns:
        UserWarning: The result of the layer depends on something that is not in the file.
    """
    kind, config = entry["class_name"], entry["config"]
    if version.major >= 3:
        meanings = MEANINGS_OF_KERAS3
    else:
        meanings = MEANINGS
        if config.get("activation") == "hard_sigmoid":
            config = {**config, "activation": keras2_hard_sigmoid}
    if kind in meanings:
        kind, config = meanings[kind](config, version)
    return {**entry, "class_name": kind, "config": config}


def _resizing(config: Config, version: Version) -> tuple[str, Config]:
    """TensorFlow's bicubic tabulates its kernel and differs by up to 1e-3 from Keras 3."""
    name = str(config.get("interpolation", "bilinear")).lower()
    return "Resizing", {**config, "interpolation": {"bicubic": "tensorflow_bicubic"}.get(name, name)}


def _up_sampling(config: Config, version: Version) -> tuple[str, Config]:
    """Bilinear upsampling aligns first pixels in multi-backend Keras, centres in tf.keras since TensorFlow 1.14.

    Trap: tf.keras of TensorFlow 1.13 has the option but does not write it.
    """
    name = str(config.get("interpolation", "nearest")).lower()
    if version.tensorflow and version.numbers <= (2, 2, 4) and "interpolation" not in config:
        warnings.warn(
            f"Layer {config['name']!r} of kind UpSampling2D is assumed to repeat pixels: {version} of TensorFlow 1.13, "
            "which wrote the file, does not say whether it interpolates",
            stacklevel=2,
        )
    if name == "bilinear":
        warn_if_unknown(version, config["name"], "UpSampling2D", "in multi-backend Keras, aligned at the first pixels")
    older = {"bicubic": "tensorflow_bicubic"} if version.tensorflow else {"bilinear": "legacy_bilinear"}
    return "UpSampling2D", {**config, "interpolation": older.get(name, name)}


def _random_crop(config: Config, version: Version) -> tuple[str, Config]:
    """RandomCrop outside training, by version: it crops or resizes before Keras 3.8, then it is the identity.

    tf.keras before 2.7 resizes, then crops. From 2.7 to Keras 3.5 it crops to the aspect ratio, then resizes. Keras 3.6
    and 3.7 crop at a position that depends on the image size. In training all crop a batch at one random place.
    """
    warn_if_unknown(version, config["name"], "RandomCrop", "in Keras 3.8 and later, the identity outside training")
    if version.numbers >= (3, 8, 0) or not version.known:
        return "RandomCrop", config
    kept = ("name", "trainable", "dtype", "height", "width", "data_format")
    outside = "cover" if version.numbers < (2, 7, 0) else "part" if version.numbers < (3, 6, 0) else "corner"
    return "RandomCrop", {key: config[key] for key in kept if key in config} | {"outside": outside}


def _random_flip(config: Config, version: Version) -> tuple[str, Config]:
    """RandomFlip in both directions: before Keras 3.6 each direction is drawn for itself, since then both at once."""
    separate = version.known and version.numbers < (3, 6, 0)
    mode = config.get("mode", "horizontal_and_vertical")
    return "RandomFlip", {**config, "mode": SEPARATE_FLIPS} if separate and mode == FLIPS[2] else config


def _random_contrast(config: Config, version: Version) -> tuple[str, Config]:
    """A number f as the factor of RandomContrast: contrasts from 1 - f to 1 + f before Keras 3.6, from 1 since then.

    Keras 3.6 and later write a pair.
    """
    factor = config.get("factor")
    older = version.numbers < (3, 6, 0) and isinstance(factor, int | float)
    return "RandomContrast", {**config, "factor": [factor] * 2} if older else config


def _random_size(config: Config, version: Version) -> tuple[str, Config]:
    """RandomHeight and RandomWidth, which Keras 3 removed: the identity outside training."""
    warnings.warn(
        f"Layer {config['name']!r} stretches images at random in training, which Keras 3 has no layer for. It is "
        "imported as the identity, which it is outside training",
        stacklevel=2,
    )
    return "Identity", {key: config[key] for key in ("name", "trainable", "dtype") if key in config}


MEANINGS_OF_KERAS3: Mapping[str, Meaning] = MappingProxyType(
    {"RandomContrast": _random_contrast, "RandomCrop": _random_crop, "RandomFlip": _random_flip}
)
MEANINGS: Mapping[str, Meaning] = MappingProxyType(
    {
        **MEANINGS_OF_KERAS3,
        "RandomHeight": _random_size,
        "RandomWidth": _random_size,
        "Resizing": _resizing,
        "UpSampling2D": _up_sampling,
    }
)
