"""A worker of the inference benchmark: holds one network in one runtime and times it when asked.

Run by `tests.benchmarks.inference` as `python -m tests.benchmarks.peers PEER`, in any interpreter that has the runtime.
Requests and answers are lines of JSON on stdin and stdout. Needs NumPy and the runtime, nothing else.
"""

import importlib.metadata
import importlib.util
import json
import os
import re
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

Run = Callable[[np.ndarray], Any]  # a float32 batch, channels last, to whatever holds the finished predictions
MODULES = {
    "vgg16": "VGG16",
    "vgg19": "VGG19",
    "resnet50": "ResNet50",
    "inception_v3": "InceptionV3",
    "xception": "Xception",
}
SIZES = {"vgg16": 224, "vgg19": 224, "resnet50": 224, "inception_v3": 299, "xception": 299}
TURN = 0.3  # seconds that a runtime computes when it is its turn
# What each runtime is made of; the first is looked for to tell whether it is there.
PACKAGES = {
    "flaxapps": ("jax", "jaxlib", "flax"),
    "keras-jax": ("keras", "jax", "jaxlib"),
    "keras-tensorflow": ("tensorflow", "keras"),
    "torch": ("torch", "torchvision", "timm"),
    "onnxruntime": ("onnxruntime",),
}


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open_flaxapps(network: str, size: int, variant: str, folder: str) -> Run:
    """Ours, compiled for each batch that comes: "plain", "default", "fast", or "fast-bfloat16" for its 1x1 layers."""
    import jax

    import flaxapps
    from flaxapps.registry import build_model
    from flaxapps.runtime.process import keep_freed_memory

    keep_freed_memory()  # as the command line does

    options = {"input_shape": (size, size, 3), "min_size": 32, "data_format": "channels_last"}
    model = build_model(network, **options)
    random = np.random.default_rng(0)
    variables: Any = jax.tree.map(
        lambda leaf: random.random(leaf.shape, np.float32) / 16, jax.eval_shape(model.init_variables)
    )
    if variant != "plain":
        mode, _, pointwise = variant.partition("-")
        model, variables = flaxapps.optimize(model, variables, mode=mode, bfloat16_pointwise=bool(pointwise))
    compiled: dict[int, Run] = {}

    def run(x: np.ndarray) -> Any:
        if len(x) not in compiled:
            compiled[len(x)] = flaxapps.compile(model, variables, len(x))
        return jax.block_until_ready(compiled[len(x)](x))

    return run


def open_keras(network: str, size: int, backend: str, folder: str) -> Run:
    """Keras 3 without the overhead of `predict`, which counts at batch 1."""
    os.environ["KERAS_BACKEND"] = backend
    import keras
    from keras.src.initializers.random_initializers import RandomInitializer

    with ExitStack() as stack:  # Keras compiles a random generator for every shape of weights
        for kind in RandomInitializer.__subclasses__():
            stack.enter_context(
                mock.patch.object(kind, "__call__", lambda self, shape, dtype=None: np.zeros(shape, "f4"))
            )
        model = getattr(keras.applications, MODULES[network])(weights=None, input_shape=(size, size, 3))
    random = np.random.default_rng(0)
    model.set_weights([random.random(weight.shape, np.float32) / 16 for weight in model.weights])
    return lambda x: np.asarray(model.predict_on_batch(x))


def torch_model(network: str) -> Any:
    """The same architecture from torchvision, or timm for Xception."""
    import torch
    import torchvision

    torch.manual_seed(0)
    if network == "xception":
        import timm

        return timm.create_model("legacy_xception", pretrained=False).eval()
    options = {"aux_logits": False, "init_weights": False} if network == "inception_v3" else {}
    model = getattr(torchvision.models, network)(weights=None, **options).eval()
    if network == "resnet50":  # torchvision's strides are of "version 1.5", which takes 6% more work than Keras's
        for block in (each for each in model.modules() if hasattr(each, "conv3")):
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
    return model


def open_torch(network: str, size: int, variant: str, folder: str) -> Run:
    """Channels last, inference mode."""
    import torch

    torch.set_num_threads(cores())
    model = torch_model(network).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def run(x: np.ndarray) -> Any:
        return model(torch.from_numpy(x).permute(0, 3, 1, 2)).numpy()  # a channels-last array is one seen so

    return run


def write_onnx(network: str, size: int, path: Path) -> None:
    """Exports the torch model, for batches of any size."""
    import torch

    x = torch.zeros(2, 3, size, size)
    shapes = ({0: torch.export.Dim("batch")},)
    program = torch.onnx.export(torch_model(network), (x,), dynamic_shapes=shapes, dynamo=True, verbose=False)
    program.save(str(path))


def open_onnxruntime(network: str, size: int, variant: str, folder: str) -> Run:
    """Of a file that a worker with torch has exported."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores()
    path = onnx_path(network, size, folder)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is exported with torch, onnx and onnxscript, which are not all there")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    return lambda x: session.run(None, {entry.name: np.ascontiguousarray(x.transpose(0, 3, 1, 2))})[0]


def onnx_path(network: str, size: int, folder: str) -> Path:
    """Where the exported file is."""
    return Path(folder) / f"{network}_{size}.onnx"


OPENERS: dict[str, tuple[str, Callable[[str, int, str, str], Run], str]] = {
    "flaxapps": ("flaxapps", open_flaxapps, "default"),
    "flaxapps-fast": ("flaxapps", open_flaxapps, "fast"),
    "flaxapps-plain": ("flaxapps", open_flaxapps, "plain"),
    "flaxapps-fast-bfloat16": ("flaxapps", open_flaxapps, "fast-bfloat16"),
    "keras-jax": ("keras-jax", open_keras, "jax"),
    "keras-tensorflow": ("keras-tensorflow", open_keras, "tensorflow"),
    "torch": ("torch", open_torch, ""),
    "onnxruntime": ("onnxruntime", open_onnxruntime, ""),
}


def median_seconds(run: Run, x: np.ndarray) -> float:
    """The median of a turn of calls, after one that is not counted.

    Threads of the runtime that had its turn before may still spin, and the caches are full of its arrays.
    """
    run(x)
    times: list[float] = []
    while sum(times) < TURN:
        start = time.perf_counter()
        run(x)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def peak_bytes() -> int:
    """Largest resident size of this process so far."""
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])  # type: ignore[index]  # Linux writes it


def versions(peer: str) -> dict[str, str]:
    """Of Python and the packages of a peer, with "" for one that is not installed."""
    found = {"python": sys.version.split()[0]}
    for name in PACKAGES[OPENERS[peer][0]]:
        found[name] = _version(name) if importlib.util.find_spec(name) else ""
    return found


def _version(name: str) -> str:
    for distribution in (name, f"{name}-cpu"):
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "?"


def main() -> None:
    """Answers requests until stdin ends."""
    peer = sys.argv[1]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a runtime prints is no answer
    _, opener, variant = OPENERS[peer]
    run: Run | None = None
    for line in sys.stdin:
        request = json.loads(line)
        answer: dict[str, Any] = {}
        try:
            if request["do"] == "versions":
                answer = versions(peer)
            elif request["do"] == "onnx":
                write_onnx(request["network"], request["size"], Path(request["path"]))
            elif request["do"] == "open":
                run = None
                run = opener(request["network"], request["size"], variant, request["folder"])
            elif request["do"] == "run":
                assert run is not None
                shape = (request["batch"], request["size"], request["size"], 3)
                x = np.random.default_rng(0).random(shape, np.float32)
                answer = {"seconds": median_seconds(run, x), "peak_bytes": peak_bytes()}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
