"""What an accelerator computes, beside what this machine's processor computes: outputs, training, exported files."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import flaxapps
from flaxapps import Input, Model, layers, train
from flaxapps.registry import build_model
from tests.recipe import CLASSIC, HEADS, images_for, recipe_variables, relative_difference

NETWORKS = (*CLASSIC, *HEADS)  # the five of Keras 2.0 and one of each other family
# Largest error of outputs, relative to the largest of them, in float32 with products of full precision. The networks'
# own rounding in another order of sums is about 1e-6.
BOUND = 1e-4
STEPS = 10


class Row(NamedTuple):
    """One figure.

    Attributes:
        check: What was done.
        network: With which network.
        figure: What `value` is.
        value: The figure.
        bound: Its upper bound; None for figures that are only reported.
    """

    check: str
    network: str
    figure: str
    value: float
    bound: float | None = None

    @property
    def failed(self) -> bool:
        """Whether the figure is above its bound, or no number."""
        return self.bound is not None and not self.value <= self.bound


def smallest(network: str, size: int) -> int:
    """The size to try a network at: `size`, or the smallest that it takes with a classifier on top."""
    return max(size, 75 if network in ("inception_v3", "xception", "inception_resnet_v2") else 32)


def with_arrays(network: str, size: int, **options: Any) -> tuple[Model, Any, np.ndarray]:
    """A network for images of a size, its deterministic arrays and two images."""
    shape = (size, size, 3)
    model = build_model(network, input_shape=shape, **{"min_size": 32, "data_format": "channels_last"} | options)
    return model, recipe_variables(model), images_for(network, 0, (2, *shape))


def on_processor(function: Callable[..., Any], *arguments: Any) -> Any:
    """What the processor of this machine computes, in float32."""
    return jax.device_get(jax.jit(function)(*jax.device_put(arguments, jax.devices("cpu")[0])))


def outputs(network: str, size: int) -> Iterator[Row]:
    """Outputs of one network: full precision, JAX's default, bfloat16, and both modes of `optimize`."""
    model, variables, images = with_arrays(network, smallest(network, size))
    expected = on_processor(model.apply, variables, images)

    def error(model: Model, variables: Any) -> float:
        return relative_difference(jax.device_get(jax.jit(model.apply)(variables, images)), expected)

    with jax.default_matmul_precision("highest"):
        yield Row("outputs", network, "error, full precision", error(model, variables), BOUND)
        if network in CLASSIC:
            fast = flaxapps.optimize(model, variables, mode="fast")
            yield Row("outputs", network, "error, optimized", error(*fast), BOUND)
    yield Row("outputs", network, "error, default precision", error(model, variables))
    half, _, _ = with_arrays(network, smallest(network, size), dtype="bfloat16")
    yield Row("outputs", network, "error, bfloat16", error(half, variables))


def exported(network: str, size: int) -> Iterator[Row]:
    """The StableHLO file, which JAX alone runs, and a network in int8."""
    model, variables, images = with_arrays(network, smallest(network, size))
    platform = {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
    with tempfile.TemporaryDirectory() as folder, jax.default_matmul_precision("highest"):
        path = Path(folder) / "network.stablehlo"
        flaxapps.export(model, variables, path, platforms=[platform])
        found = np.asarray(flaxapps.load_exported(path)(images))
    expected = on_processor(model.apply, variables, images)
    yield Row("exported", network, "error, full precision", relative_difference(found, expected), BOUND)
    pixels = np.random.default_rng(1).uniform(0, 255, (8, *images.shape[1:])).astype(np.float32)
    rounded, arrays = flaxapps.quantize(model, variables, pixels, preprocess=True)
    found = jax.device_get(jax.jit(rounded.apply)(arrays, images))
    expected = on_processor(rounded.apply, arrays, images)
    # A value that rounds the other way changes all that comes after it by a step of int8.
    yield Row("int8", network, "error beside int8 on the processor", relative_difference(found, expected), 0.05)


def small_network(size: int) -> Model:
    """A network of every kind of layer that trains: convolutions, BatchNormalization, a depthwise one, and a head.

    Without biases that BatchNormalization takes away again: they would train on rounding errors.
    """
    x = image = Input((size, size, 3))
    for filters in (16, 32):
        x = layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False)(x)
        x = layers.Activation("relu")(layers.BatchNormalization(momentum=0.9)(x))
        x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    return Model(image, layers.Dense(8, activation="softmax")(layers.GlobalAveragePooling2D()(x)))


def training(size: int) -> Iterator[Row]:
    """Ten steps on the processor, and under jit and pmap on all devices: losses, and parameters at the end."""
    model = small_network(smallest("", size))
    random = np.random.default_rng(0)
    batch = 2 * len(jax.devices()) * (8 // min(8, len(jax.devices())))
    images = random.standard_normal((STEPS * batch, *model.input_shape[1:]), np.float32)
    labels = random.integers(0, 8, STEPS * batch).astype(np.int32)
    start = model.init_variables()

    def run(devices: Any, parallel: str) -> tuple[list[float], Mapping[str, Any]]:
        losses: list[float] = []
        result = train.fit(
            model,
            start,
            (images, labels),
            optimizer=optax.sgd(0.05, momentum=0.9),
            loss="sparse_categorical_crossentropy",
            batch_size=batch,
            devices=devices,
            parallel=parallel,
            verbose=False,
            callbacks=[lambda event: losses.append(event.values["loss"]) if isinstance(event, train.StepEnd) else None],
        )
        return losses, jax.device_get(result.variables)

    with jax.default_matmul_precision("highest"):
        expected_losses, expected = run(jax.devices("cpu")[:1], "jit")
        for parallel in ("jit", "pmap"):
            losses, variables = run(jax.devices(), parallel)
            where = f"{parallel}, {len(jax.devices())} devices"
            error = relative_difference(np.asarray(losses), np.asarray(expected_losses))
            yield Row("ten steps", "small", f"error of losses, {where}", error, BOUND)
            errors = jax.tree.map(relative_difference, variables, expected)
            yield Row("ten steps", "small", f"error of variables, {where}", max(jax.tree.leaves(errors)), 10 * BOUND)
