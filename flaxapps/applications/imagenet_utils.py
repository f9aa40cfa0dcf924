"""ImageNet preprocessing of images and decoding of predictions, as in Keras."""

import functools
import importlib.resources
import inspect
import json
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from flaxapps.runtime.keras_settings import floatx, standardize_data_format

CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)
TORCH_MEAN_RGB = (0.485, 0.456, 0.406)
TORCH_STANDARD_DEVIATION_RGB = (0.229, 0.224, 0.225)
MODES = ("caffe", "tf", "torch", "rescale")

PREPROCESSING = MappingProxyType(
    {
        "caffe": "BGR, mean subtracted",
        "tf": "-1 to 1",
        "torch": "normalized with mean and deviation",
        "none": "0 to 255, scaled inside the network",
    }
)
"""Effect of a network's `preprocess_input`, by its `ModelInfo.preprocessing`."""

ArrayT = TypeVar("ArrayT", NDArray[Any], jax.Array)


class Preprocessing(Protocol):
    """Type of a network's `preprocess_input`."""

    def __call__(self, x: ArrayT, data_format: str | None = None) -> ArrayT:
        """Preprocess images for the network.

        Args:
            x: RGB images with values 0 to 255, of 3 or 4 dimensions; NumPy or JAX. Never modified.
            data_format: "channels_last", "channels_first", or None for keras.json's.

        Returns:
            An array of the same kind and shape; integers become float32.

        Raises:
            ValueError: `x` is neither 3D nor 4D, or has another number of channels than the network.
            TypeError: `x` is not a NumPy or JAX array, or holds neither numbers nor booleans.
        """
        ...


def preprocessing(mode: str, module: str) -> Preprocessing:
    """Creates the `preprocess_input` of a network.

    Args:
        mode: "caffe", "tf" or "torch", as for `preprocess_input`; or "none", which returns the images as they are.
        module: Module of the network.

    Returns:
        A function of images, with the docstring of `Preprocessing`.
    """

    def preprocess(x: ArrayT, data_format: str | None = None) -> ArrayT:
        return x if mode == "none" else preprocess_input(x, data_format, mode=mode)

    _, _, sections = (inspect.getdoc(Preprocessing.__call__) or "").partition("\n")
    preprocess.__name__ = preprocess.__qualname__ = "preprocess_input"
    preprocess.__module__ = module
    preprocess.__doc__ = f"Preprocess images for the network: {PREPROCESSING[mode]}.\n{sections}"
    return preprocess


def preprocess_input(x: ArrayT, data_format: str | None = None, mode: str = "caffe") -> ArrayT:
    """Scales RGB images for a network; returns a new array and never modifies `x`.

    * "caffe" (VGG16, VGG19, ResNet50): RGB becomes BGR, then the ImageNet mean is subtracted; no scaling.
    * "tf" (Xception, InceptionV3): to the range -1 to 1, any number of channels.
    * "torch": to the range 0 to 1, then normalized with the ImageNet mean and standard deviation.
    * "rescale": to the range 0 to 1, any number of channels; Keras has it as `Rescaling(1 / 255)` and as `rescale` of
      ImageDataGenerator, which most networks for digits, faces and signs were trained with.

    Works under `jax.jit`, `jax.vmap` and `jax.grad`. XLA on CPU multiplies by the reciprocal, so "tf" and "torch" in
    float32 differ from NumPy's results by up to 1e-6; "caffe" does not differ.

    >>> preprocess_input(np.array([[[0, 127.5, 255]]]), mode="tf")
    array([[[-1.,  0.,  1.]]])

    Args:
        x: One image or a batch, values 0 to 255; (H, W, C) or (N, H, W, C), with "channels_first" (C, H, W) or
            (N, C, H, W).
        data_format: "channels_last", "channels_first", or None for the one of `keras.json`.
        mode: "caffe", "tf", "torch" or "rescale".

    Returns:
        An array of the kind (NumPy or JAX) and shape of `x`. Floats keep their type, also float16 and bfloat16;
        integers and booleans become `floatx` of `keras.json`, float32 by default.

    Raises:
        ValueError: The mode or data format is unknown, `x` is neither 3D nor 4D, or `x` has not 3 channels in modes
            "caffe" and "torch".
        TypeError: `x` is not a NumPy or JAX array, or holds neither numbers nor booleans.
    """
    if mode not in MODES:
        # In Keras's words, which do not mention "rescale".
        raise ValueError(f"Expected mode to be one of `caffe`, `tf` or `torch`. Received: mode={mode}")
    data_format = standardize_data_format(data_format)
    namespace = _array_namespace(x)
    if x.ndim not in (3, 4):
        raise ValueError(f"Expected one image (3D) or a batch of images (4D). Received array with shape: {x.shape}")
    channel_axis = -1 if data_format == "channels_last" else -3
    if mode in ("caffe", "torch") and x.shape[channel_axis] != 3:
        raise ValueError(
            f"Mode `{mode}` expects 3 channels (RGB). Received array with shape {x.shape}, data_format={data_format}"
        )
    x = _as_floating(x)

    def constant(*values: float) -> Any:
        # In the type of `x`: a Python number would turn NumPy's bfloat16 into float32. And in its rank, for those who
        # set jax_numpy_rank_promotion="raise".
        shape = [1] * x.ndim
        shape[channel_axis] = -1
        return namespace.asarray(values, dtype=x.dtype).reshape(shape)

    result: ArrayT
    if mode == "rescale":
        result = x / constant(255.0)
    elif mode == "tf":
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
    # JAX's issubdtype, as NumPy's does not count bfloat16 among the floats.
    if jnp.issubdtype(x.dtype, jnp.floating):
        return x
    if jnp.issubdtype(x.dtype, jnp.integer) or x.dtype == bool:
        return x.astype(floatx())
    raise TypeError(f"Expected images of floats, integers or booleans. Received dtype: {x.dtype}")


@functools.cache
def class_names() -> tuple[tuple[str, str], ...]:
    """Returns the 1000 ImageNet classes in the order of a network's outputs, each as (WordNet id, name).

    >>> class_names()[285]
    ('n02124075', 'Egyptian_cat')
    """
    file = importlib.resources.files("flaxapps.applications") / "imagenet_class_index.json"
    index = json.loads(file.read_text(encoding="utf-8"))
    return tuple((wordnet_id, name) for wordnet_id, name in (index[str(number)] for number in range(len(index))))


def decode_predictions(preds: NDArray[Any] | jax.Array, top: int = 5) -> list[list[tuple[str, str, np.floating[Any]]]]:
    """Names the best classes of each sample.

    >>> scores = np.zeros((1, 1000))
    >>> scores[0, 285] = 0.75
    >>> [(name, float(score)) for _, name, score in decode_predictions(scores, top=1)[0]]
    [('Egyptian_cat', 0.75)]

    Args:
        preds: Scores of shape (samples, 1000), of any number type: probabilities or logits.
        top: How many classes per sample, 0 to 1000. 0 returns all 1000, as Keras does.

    Returns:
        One list per sample of (WordNet id, name, score), best first. Among equal scores the order is Keras's. The
        score is a NumPy scalar of the dtype of `preds`.

    Raises:
        ValueError: `preds` is not of shape (samples, 1000), or `top` is negative or above 1000.
    """
    preds = np.asarray(preds)
    names = class_names()
    if preds.ndim != 2 or preds.shape[1] != len(names):
        raise ValueError(
            "`decode_predictions` expects a batch of predictions (i.e. a 2D array of shape (samples, 1000)). "
            f"Received array with shape: {preds.shape}"
        )
    if not 0 <= top <= len(names):
        raise ValueError(f"Expected top to be between 0 and {len(names)} (0 for all). Received: top={top}")
    return [_best_of(scores, top, names) for scores in preds]


def _best_of(
    scores: NDArray[Any], top: int, names: tuple[tuple[str, str], ...]
) -> list[tuple[str, str, np.floating[Any]]]:
    indices = scores.argsort()[-top:][::-1]
    best = [(*names[index], scores[index]) for index in indices]
    # Keras sorts a second time. This matters for NaN only, which argsort puts among the best.
    return sorted(best, key=lambda entry: entry[2], reverse=True)
