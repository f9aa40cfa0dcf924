"""Deterministic weights: the same arrays on any machine, from a layer's index and a seed.

Recipe (numpy only, Python 3.7+): weight j of layer i (i = index in model.layers) is drawn from
RandomState(crc32("seed/i/j")): kernels N(0, sqrt(2 / fan_in)), fan_in = all dims but the last
(depthwise: kh*kw), biases N(0, .05), counts 7, gamma U(.4, .8), beta N(0, .1), mean N(0, .1), variance U(.8, 1.2).
"""

import zlib

import numpy as np


def weight(seed, i, j, name, shape):
    r = np.random.RandomState(zlib.crc32(("%d/%d/%d" % (seed, i, j)).encode()) & 0xFFFFFFFF)
    n = name.lower()
    if "variance" in n:
        w = r.uniform(0.8, 1.2, shape)
    elif n == "count":
        w = np.full(shape, 7.0)
    elif "gamma" in n:
        w = r.uniform(0.4, 0.8, shape)
    elif "beta" in n or "mean" in n:
        w = r.normal(0, 0.1, shape)
    elif "bias" in n:
        w = r.normal(0, 0.05, shape)
    else:
        fan = shape[0] * shape[1] if "depthwise" in n else int(np.prod(shape[:-1]))
        w = r.normal(0, np.sqrt(2.0 / fan), shape)
    return w.astype("float32")


def image(seed, shape):
    """A batch in the range of a preprocessed image: smooth waves plus noise, N(0, ~1)."""
    r = np.random.RandomState(zlib.crc32(("image/%d" % seed).encode()) & 0xFFFFFFFF)
    n, h, w, c = shape
    y, x = np.mgrid[0:h, 0:w].astype("float64")
    out = np.zeros(shape)
    for b in range(n):
        for k in range(c):
            fy, fx, p = r.uniform(0.01, 0.2, 3)
            out[b, :, :, k] = np.sin(fy * y + fx * x + 6 * p)
    return (out + 0.3 * r.normal(size=shape)).astype("float32")
