"""What the inference benchmark compares: flaxapps in all its modes, and other runtimes in theirs.

Each function opens one network in one runtime, with random weights, and returns a function of a batch. Runtimes are
imported when they are opened, as each has a process, and perhaps an interpreter, of its own.
"""

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

from tests.benchmarks.networks import NETWORKS
from tests.benchmarks.random_weights import draw_torch_weights, random_variables

Run = Callable[[np.ndarray], Any]  # a float32 batch, channels last, to whatever holds the finished logits
CALIBRATION_IMAGES = 16


class Runtime(NamedTuple):
    """One way to run networks.

    Attributes:
        open: Function of the network, the size of the images, the variant and a folder for exported files.
        variant: What `open` distinguishes.
        packages: What it is made of; the first tells whether it is there.
        reduced: Whether it computes in less than float32.
    """

    open: Callable[[str, int, str, str], Run]
    variant: str
    packages: tuple[str, ...]
    reduced: bool = False


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def images(count: int, size: int) -> np.ndarray:
    """Random images for calibration and errors, the same for all runtimes."""
    return np.random.default_rng(1).random((count, size, size, 3), np.float32)


def open_flaxapps(network: str, size: int, variant: str, folder: str) -> Run:
    """Ours, compiled for each batch that comes: "plain", a mode of `optimize` or `quantize`."""
    import flaxapps

    model, variables = build_flaxapps(network, size)
    if variant == "int8":
        model, variables = flaxapps.quantize(model, variables, images(CALIBRATION_IMAGES, size))
        variant = "default"
    mode, _, precision = variant.partition("-")
    how: dict[str, Any] = {} if mode == "plain" else {"optimize": mode, "precision": precision or "float32"}
    return compiled_flaxapps(model, variables, **how)


def build_flaxapps(network: str, size: int) -> tuple[Any, Any]:
    """Our model and random variables."""
    import jax

    from flaxapps.registry import build_model, get_application

    options: dict[str, Any] = {"input_shape": (size, size, 3), "min_size": 32, "classifier_activation": None}
    if get_application(network).info.channels_first:
        options["data_format"] = "channels_last"
    model = build_model(network, **options)
    return model, random_variables(jax.eval_shape(model.init_variables))


def compiled_flaxapps(model: Any, variables: Any, **how: Any) -> Run:
    """Ours, compiled for each batch that comes."""
    import jax

    import flaxapps
    from flaxapps.runtime.process import keep_freed_memory

    keep_freed_memory()  # as the command line does
    compiled: dict[int, Run] = {}

    def run(x: np.ndarray) -> Any:
        if len(x) not in compiled:
            compiled[len(x)] = flaxapps.compile(model, variables, len(x), **how)
        return jax.block_until_ready(compiled[len(x)](x))

    return run


def open_keras(network: str, size: int, backend: str, folder: str) -> Run:
    """Keras 3 without the overhead of `predict`, which counts at batch 1."""
    model = build_keras(network, size, backend)
    random = np.random.default_rng(0)
    model.set_weights([random.random(weight.shape, np.float32) / 16 for weight in model.weights])
    return lambda x: np.asarray(model.predict_on_batch(x))


def build_keras(network: str, size: int, backend: str) -> Any:
    """A Keras model, whose weights are zeros: Keras compiles a random generator for every shape of weights."""
    os.environ["KERAS_BACKEND"] = backend
    import keras
    from keras.src.initializers.random_initializers import RandomInitializer

    with ExitStack() as stack:
        for kind in RandomInitializer.__subclasses__():
            stack.enter_context(
                mock.patch.object(kind, "__call__", lambda self, shape, dtype=None: np.zeros(shape, "f4"))
            )
        function = getattr(keras.applications, NETWORKS[network].keras)
        return function(weights=None, input_shape=(size, size, 3), classifier_activation=None)


def torch_model(network: str) -> Any:
    """The same architecture from torchvision or timm."""
    import torchvision

    source, _, name = NETWORKS[network].torch.rpartition("/")
    if not name:
        raise LookupError("neither torchvision nor timm has it")
    if source == "timm":
        import timm

        return draw_torch_weights(timm.create_model(name, pretrained=False).eval())
    options = {"aux_logits": False, "init_weights": False} if network == "inception_v3" else {}
    model = getattr(torchvision.models, name)(weights=None, **options).eval()
    if network == "resnet50":  # torchvision's strides are of "version 1.5", which takes 6% more work than Keras's
        for block in (each for each in model.modules() if hasattr(each, "conv3")):
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
    return draw_torch_weights(model)


def open_torch(network: str, size: int, variant: str, folder: str) -> Run:
    """Channels last, inference mode."""
    return run_torch(torch_model(network), variant)


def run_torch(model: Any, variant: str) -> Run:
    """A torch model in the dtype of that name, as a function of a batch."""
    import torch

    torch.set_num_threads(cores())
    dtype = getattr(torch, variant)
    model = model.to(memory_format=torch.channels_last, dtype=dtype)

    @torch.inference_mode()
    def run(x: np.ndarray) -> Any:  # a channels-last array is one seen so
        return model(torch.from_numpy(x).permute(0, 3, 1, 2).to(dtype)).float().numpy()

    return run


def write_onnx(network: str, size: int, path: Path) -> None:
    """Exports the torch model, for batches of any size."""
    import torch

    x = torch.zeros(2, 3, size, size)
    shapes = ({0: torch.export.Dim("batch")},)
    program = torch.onnx.export(torch_model(network), (x,), dynamic_shapes=shapes, dynamo=True, verbose=False)
    program.save(str(path))


def onnx_path(network: str, size: int, folder: str) -> Path:
    """Where the exported file is."""
    return Path(folder) / f"{network}_{size}.onnx"


def exported(network: str, size: int, folder: str) -> Path:
    path = onnx_path(network, size, folder)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is exported with torch, onnx and onnxscript, which are not all there")
    return path


def open_onnxruntime(network: str, size: int, variant: str, folder: str) -> Run:
    """Of a file that a worker with torch has exported; "int8" quantizes it with ONNX Runtime's own tool."""
    path = exported(network, size, folder)
    return run_onnxruntime(quantized_by_onnxruntime(path, images(CALIBRATION_IMAGES, size)) if variant else path)


def run_onnxruntime(path: Path) -> Run:
    """An ONNX file with one input, channels first, as a function of a channels-last batch."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    return lambda x: session.run(None, {entry.name: np.ascontiguousarray(x.transpose(0, 3, 1, 2))})[0]


def quantized_by_onnxruntime(path: Path, calibration: np.ndarray) -> Path:
    """Quantizes a file as ONNX Runtime's guide says: activations uint8, kernels int8 by channel, Q and DQ in pairs."""
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared, result = path.with_suffix(".prepared.onnx"), path.with_suffix(".int8.onnx")
    if result.is_file():
        return result
    quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
    name = onnxruntime.InferenceSession(str(prepared), providers=["CPUExecutionProvider"]).get_inputs()[0].name

    class Images(CalibrationDataReader):  # type: ignore[misc]  # the package is not there for mypy
        def __init__(self) -> None:
            self.left = iter(calibration)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.left, None)
            return None if image is None else {name: np.ascontiguousarray(image.transpose(2, 0, 1)[None])}

    types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    quantize_static(str(prepared), str(result), Images(), quant_format=QuantFormat.QDQ, per_channel=True, **types)
    return result


def open_openvino(network: str, size: int, variant: str, folder: str) -> Run:
    """The exported file, with OpenVINO's default precision (bfloat16 where the processor has it), float32, or int8."""
    path = exported(network, size, folder)
    if variant == "int8":
        return run_openvino(quantized_by_nncf(path, images(CALIBRATION_IMAGES, size)))
    return run_openvino(path, variant)


def quantized_by_nncf(path: Path, calibration: np.ndarray) -> Any:
    """An OpenVINO model of a file, with NNCF's default settings."""
    import nncf
    import openvino

    batches = [each.transpose(2, 0, 1)[None] for each in calibration]
    return nncf.quantize(openvino.Core().read_model(str(path)), nncf.Dataset(batches), subset_size=len(calibration))


def run_openvino(model: Any, variant: str = "default") -> Run:
    """An OpenVINO model, or a file of one, as a function of a channels-last batch."""
    import openvino

    model = openvino.Core().read_model(str(model)) if isinstance(model, Path) else model
    settings: dict[str, Any] = {"INFERENCE_NUM_THREADS": cores(), "PERFORMANCE_HINT": "LATENCY"}
    if variant == "float32":
        settings["INFERENCE_PRECISION_HINT"] = "f32"
    compiled: dict[int, Any] = {}

    def run(x: np.ndarray) -> Any:
        x = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
        if len(x) not in compiled:  # of a fixed shape, as its guide advises
            model.reshape(x.shape)
            compiled[len(x)] = openvino.compile_model(model, "CPU", settings)
        return next(iter(compiled[len(x)](x).values()))

    return run


OURS = ("jax", "jaxlib", "flax")
RUNTIMES = {
    "flaxapps": Runtime(open_flaxapps, "default", OURS),
    "flaxapps-fast": Runtime(open_flaxapps, "fast", OURS),
    "flaxapps-plain": Runtime(open_flaxapps, "plain", OURS),
    "keras-jax": Runtime(open_keras, "jax", ("keras", "jax", "jaxlib")),
    "keras-tensorflow": Runtime(open_keras, "tensorflow", ("tensorflow", "keras")),
    "torch": Runtime(open_torch, "float32", ("torch", "torchvision", "timm")),
    "onnxruntime": Runtime(open_onnxruntime, "", ("onnxruntime",)),
    "openvino-float32": Runtime(open_openvino, "float32", ("openvino",)),
    "flaxapps-int8": Runtime(open_flaxapps, "int8", OURS, reduced=True),
    "flaxapps-bfloat16": Runtime(open_flaxapps, "default-bfloat16", OURS, reduced=True),
    "openvino": Runtime(open_openvino, "default", ("openvino",), reduced=True),
    "openvino-int8": Runtime(open_openvino, "int8", ("openvino", "nncf"), reduced=True),
    "onnxruntime-int8": Runtime(open_onnxruntime, "int8", ("onnxruntime", "onnx"), reduced=True),
    "torch-bfloat16": Runtime(open_torch, "bfloat16", ("torch", "torchvision", "timm"), reduced=True),
}
