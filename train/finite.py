"""NaN and infinity checks."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

EXAMPLES_SHOWN = 5


@jax.jit
def all_finite(tree: Any) -> jax.Array:
    """Whether all numbers in a tree of arrays are finite, ()."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def describe_batch(images: Any, labels: Any) -> str:
    """Names the examples of a batch that hold NaN or infinity; empty if none does.

    >>> describe_batch(np.array([[1.0], [np.nan]]), np.array([0, 1]))
    'the images of examples 1 hold NaN or infinity (counted from 0, of 2)'

    Args:
        images: (batch, ...), or a list of such arrays.
        labels: (batch, ...).
    """
    broken = []
    for name, part in (("images", images), ("labels", labels)):
        finite = np.logical_and.reduce(
            [np.isfinite(array).reshape(len(array), -1).all(axis=1) for array in jax.tree.leaves(part)]
        )
        examples = np.flatnonzero(~finite).tolist()
        if examples:
            shown = ", ".join(map(str, examples[:EXAMPLES_SHOWN])) + (", ..." if examples[EXAMPLES_SHOWN:] else "")
            broken.append(f"the {name} of examples {shown} hold NaN or infinity (counted from 0, of {len(finite)})")
    return "; ".join(broken)
