"""Networks of several widths: numbers of filters, and the rule on the widths that weights are published for."""

import os
from collections.abc import Sequence


def rounded(filters: float) -> int:
    """Rounds a number of filters to a multiple of 8, at least 8, and by not more than a tenth downwards.

    >>> [rounded(filters) for filters in (3, 16.8, 11.2)]
    [8, 16, 16]
    """
    result = max(8, int(filters + 4) // 8 * 8)
    return result + 8 if result < 0.9 * filters else result


def check_width(weights: str | os.PathLike[str] | None, alpha: float, published: Sequence[float]) -> float:
    """Checks that weights are published for a width, and returns it as a float.

    Raises:
        ValueError: `weights` is "imagenet", and `alpha` is not one of `published`.
    """
    if weights == "imagenet" and alpha not in published:
        known = ", ".join(f"`{each}`" for each in published)
        raise ValueError(
            f"If imagenet weights are being loaded, alpha can be one of {known} only.  Received alpha={alpha}"
        )
    return float(alpha)
