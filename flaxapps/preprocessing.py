"""Scaling of pixels to what the ImageNet networks were trained on.

Source: keras/src/applications/imagenet_utils.py (Keras 3.15.1). The operations and their order are Keras's, so that
NumPy results agree with it to the last bit.
"""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from flaxapps.config import floatx, standardize_data_format

CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)
TORCH_MEAN_RGB = (0.485, 0.456, 0.406)
TORCH_STANDARD_DEVIATION_RGB = (0.229, 0.224, 0.225)
MODES = ("caffe", "tf", "torch")

ArrayT = TypeVar("ArrayT", NDArray[Any], jax.Array)


def preprocess_input(x: ArrayT, data_format: str | None = None, mode: str = "caffe") -> ArrayT:
    """Scales RGB images for a network; returns a new array and never changes `x`.

    * "caffe" (VGG16, VGG19, ResNet50): RGB becomes BGR, then the ImageNet mean is subtracted; no scaling.
    * "tf" (Xception, InceptionV3): to the range -1 to 1, any number of channels.
    * "torch": to the range 0 to 1, then normalized with the ImageNet mean and standard deviation.

    Works under `jax.jit`, `jax.vmap` and `jax.grad`. XLA on CPU multiplies by the reciprocal, so that "tf" and
    "torch" in float32 differ from NumPy's results by up to 1e-6; "caffe" does not differ.

    >>> preprocess_input(np.array([[[0, 127.5, 255]]]), mode="tf")
    array([[[-1.,  0.,  1.]]])

    Args:
        x: One image or a batch, values 0 to 255; (H, W, C) or (N, H, W, C), with "channels_first" (C, H, W) or
            (N, C, H, W).
        data_format: "channels_last", "channels_first", or None for the one of `keras.json`.
        mode: "caffe", "tf" or "torch".

    Returns:
        An array of the kind (NumPy or JAX) and shape of `x`. Floats keep their type, also float16 and bfloat16;
        integers and booleans become `floatx` of `keras.json`, float32 unless it says otherwise.

    Raises:
        ValueError: Unknown mode or data format, neither 3D nor 4D, or not 3 channels in modes "caffe" and "torch".
        TypeError: `x` is no NumPy or JAX array, or holds neither numbers nor booleans.
    """
    if mode not in MODES:
        raise ValueError(f"Expected mode to be one of `caffe`, `tf` or `torch`. Received: mode={mode}")
    data_format = standardize_data_format(data_format)
    namespace = _array_namespace(x)
    if x.ndim not in (3, 4):
        raise ValueError(f"Expected one image (3D) or a batch of images (4D). Received array with shape: {x.shape}")
    channel_axis = -1 if data_format == "channels_last" else -3
    if mode != "tf" and x.shape[channel_axis] != 3:
        raise ValueError(
            f"Mode `{mode}` expects 3 channels (RGB). Received array with shape {x.shape}, data_format={data_format}"
        )
    x = _as_floating(x)

    def constant(*values: float) -> Any:
        # In the type of `x`: a Python number would turn NumPy's bfloat16 into float32.
        return namespace.asarray(values, dtype=x.dtype).reshape((-1,) + (1,) * (-1 - channel_axis))

    result: ArrayT
    if mode == "tf":
        result = x / constant(127.5) - constant(1.0)
    elif mode == "torch":
        result = (x / constant(255.0) - constant(*TORCH_MEAN_RGB)) / constant(*TORCH_STANDARD_DEVIATION_RGB)
    else:
        result = namespace.flip(x, channel_axis) - constant(*CAFFE_MEAN_BGR)
    return result


def _array_namespace(x: object) -> Any:
    if isinstance(x, np.ndarray):
        return np
    if isinstance(x, jax.Array):  # tracers too
        return jnp
    raise TypeError(f"Expected a NumPy or JAX array of images. Received: {type(x).__name__}")


def _as_floating(x: ArrayT) -> ArrayT:
    # JAX's issubdtype: NumPy's own does not count bfloat16 among the floats.
    if jnp.issubdtype(x.dtype, jnp.floating):
        return x
    if jnp.issubdtype(x.dtype, jnp.integer) or x.dtype == bool:
        return x.astype(floatx())
    raise TypeError(f"Expected images of floats, integers or booleans. Received dtype: {x.dtype}")
