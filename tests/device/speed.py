"""Images and training steps per second of one runtime: `python -m tests.device.speed RUNTIME`.

Every runtime has a process of its own, so that none holds the accelerator's memory while another one computes. Prints a
line of JSON.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

RUNTIMES = ("flaxapps", "flaxapps-bfloat16", "keras-jax", "keras-jax-bfloat16", "torch", "torch-bfloat16")
SECONDS = 2.0  # for which each is timed, after the first calls
CLASSES = 1000


def per_second(count: int, run: Callable[[], Any]) -> float:
    """How many of `count` done in a call are done in a second: the median of calls, after two that compile."""
    run()
    run()
    times: list[float] = []
    while sum(times) < SECONDS or len(times) < 3:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return count / statistics.median(times)


def images_and_labels(batch: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return random.standard_normal((batch, size, size, 3), np.float32), random.integers(0, CLASSES, batch)


def of_flaxapps(batch: int, size: int, dtype: str) -> tuple[float, float]:
    """ResNet50 of ours: images per second, and examples per second in training."""
    import jax
    import optax

    from flaxapps.registry import build_model
    from flaxapps.train import create_state, make_objective, train_step

    images, labels = jax.device_put(images_and_labels(batch, size))
    labels = labels.astype("int32")
    model = build_model("resnet50", input_shape=(size, size, 3), min_size=32, data_format="channels_last", dtype=dtype)
    variables = jax.device_put(model.init_variables())
    apply = jax.jit(model.apply)
    inference = per_second(batch, lambda: jax.block_until_ready(apply(variables, images)))
    optimizer = optax.sgd(0.01, momentum=0.9)
    objective = make_objective(model, "sparse_categorical_crossentropy")
    state = create_state(model, variables, optimizer)

    def step() -> None:
        nonlocal state
        state, sums = train_step(state, images, labels, objective=objective, optimizer=optimizer)
        jax.block_until_ready(sums)

    return inference, per_second(batch, step)


def of_keras(batch: int, size: int, dtype: str) -> tuple[float, float]:
    """ResNet50 of Keras on JAX."""
    os.environ["KERAS_BACKEND"] = "jax"
    import jax
    import keras

    if dtype != "float32":
        keras.config.set_dtype_policy("mixed_bfloat16")
    images, labels = images_and_labels(batch, size)
    model = keras.applications.ResNet50(weights=None, input_shape=(size, size, 3))
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "sparse_categorical_crossentropy")
    on_device = jax.device_put(images)
    inference = per_second(batch, lambda: model.predict_on_batch(on_device))
    return inference, per_second(batch, lambda: model.train_on_batch(on_device, labels))


def of_torch(batch: int, size: int, dtype: str) -> tuple[float, float]:
    """ResNet50 of torchvision, channels last, in eager mode; its strides take 6% more work than Keras's."""
    import torch
    import torchvision

    device = "cuda" if torch.cuda.is_available() else "cpu"
    arrays = images_and_labels(batch, size)
    images = torch.from_numpy(arrays[0]).permute(0, 3, 1, 2).to(device)
    labels = torch.from_numpy(arrays[1]).to(device)
    model = torchvision.models.resnet50(weights=None).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    half = torch.autocast(device, torch.bfloat16, enabled=dtype != "float32")

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    def infer() -> None:
        with torch.inference_mode(), half:
            model(images)
        wait()

    def step() -> None:
        optimizer.zero_grad()
        with half:
            loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        wait()

    model.eval()
    inference = per_second(batch, infer)
    model.train()
    return inference, per_second(batch, step)


def main() -> None:
    """Measures one runtime."""
    parser = argparse.ArgumentParser(prog="python -m tests.device.speed", description=__doc__.splitlines()[0])
    parser.add_argument("runtime", choices=RUNTIMES)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=224)
    options = parser.parse_args()
    name, half = options.runtime.removesuffix("-bfloat16"), options.runtime.endswith("-bfloat16")
    measure = {"flaxapps": of_flaxapps, "keras-jax": of_keras, "torch": of_torch}[name]
    images, steps = measure(options.batch, options.size, "bfloat16" if half else "float32")
    print(json.dumps({"images per second": images, "examples per second in training": steps}))


if __name__ == "__main__":
    main()
