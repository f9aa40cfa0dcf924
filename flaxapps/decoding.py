"""Names for the 1000 outputs of an ImageNet classifier.

Source: keras/src/applications/imagenet_utils.py (Keras 3.15.1); `data/imagenet_class_index.json` is the file that
Keras publishes.
"""

import functools
import importlib.resources
import json
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray


@functools.cache
def class_names() -> tuple[tuple[str, str], ...]:
    """The 1000 ImageNet classes in the order of a network's outputs, each as (WordNet id, name).

    >>> class_names()[285]
    ('n02124075', 'Egyptian_cat')
    """
    file = importlib.resources.files("flaxapps") / "data" / "imagenet_class_index.json"
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
        ValueError: `preds` has another shape, or `top` is negative or above 1000.
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
    # Already sorted but for NaN, which argsort puts among the best; Keras sorts again, so its order needs this too.
    return sorted(best, key=lambda entry: entry[2], reverse=True)
