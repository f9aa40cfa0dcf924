"""VGG19: 19 layers with weights (table 1, column E) of https://arxiv.org/abs/1409.1556."""

import os

from flaxapps.decoding import decode_predictions as decode_predictions
from flaxapps.network import Activation, ImageShape, Network, build_network
from flaxapps.preprocessing import ArrayT
from flaxapps.preprocessing import preprocess_input as preprocess
from flaxapps.recording import Node
from flaxapps.registry import ModelInfo
from flaxapps.vgg import architecture

INFO = ModelInfo(
    name="vgg19",
    function="VGG19",
    default_size=224,
    min_size=48,
    possible_size=32,
    preprocessing="caffe",
    parameters=143_667_240,
    depth=19,
    top1=71.3,
    top5=90.0,
    reference="https://arxiv.org/abs/1409.1556",
)

ARCHITECTURES = {"": architecture(19)}


def VGG19(  # noqa: N802 (Keras's name)
    include_top: bool = True,
    weights: str | os.PathLike[str] | None = "imagenet",
    input_tensor: Node | None = None,
    input_shape: ImageShape | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Activation = "softmax",
    *,
    data_format: str | None = None,
    dtype: str | None = None,
    min_size: int | None = None,
    seed: int = 0,
) -> Network:
    """VGG19, the network of https://arxiv.org/abs/1409.1556.

    Images are 224 x 224 by default and at least 48 x 48,
    preprocessed by `preprocess_input` of this module (BGR, mean subtracted).

    Args:
        include_top: Whether to put the classifier on the features.
        weights: None (Keras's initializers), "imagenet" (downloaded once, verified, cached), or the path of a file.
        input_tensor: A Node to use as the image, in place of a new Input.
        input_shape: Shape of one image; without the classifier, None leaves the size free, as do None dimensions.
        pooling: Without the classifier: None for the feature map (4D), "avg" or "max" for a vector per image.
        classes: Number of classes of the classifier; 1000 for "imagenet".
        classifier_activation: Activation of the classifier; None returns logits.
        data_format: Layout of images: "channels_last", "channels_first", or None for keras.json's.
        dtype: Compute dtype such as "bfloat16"; parameters and statistics stay float32. None is keras.json's floatx.
        min_size: Lowers the smallest image size that is accepted, in pixels.
        seed: Seed of the initializers where weights is None.

    Returns:
        Network(model, variables).

    Raises:
        ValueError: The arguments break a rule; the message says which and what would be right.
        WeightError: The weights cannot be had, or do not fit.
    """
    return build_network(INFO, ARCHITECTURES[""], **locals())


def preprocess_input(x: ArrayT, data_format: str | None = None) -> ArrayT:
    """Turns RGB to BGR and subtracts ImageNet's mean pixel; no scaling.

    Args:
        x: Images with values in 0..255, RGB, of 3 or 4 dimensions; NumPy or JAX. Never changed.
        data_format: "channels_last", "channels_first", or None for keras.json's.

    Returns:
        An array of the same kind and shape; integers become float32.
    """
    return preprocess(x, data_format, mode=INFO.preprocessing)
