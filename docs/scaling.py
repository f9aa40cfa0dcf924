"""Write the tables of SCALING.md: `python docs/scaling.py`. Takes a minute on a laptop, without accelerator or weights.

The programs are lowered for TPU, and XLA counts their operations.
"""

import functools
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.export
import optax

from flaxapps import train
from flaxapps.registry import build_model, model_info
from flaxapps.train.step.step import take_step

PAGE = Path(__file__).parent.parent / "SCALING.md"
NETWORKS = ("xception", "vgg16", "vgg19", "resnet50", "inception_v3")
BATCH = 32
BYTES = {"bf16": 2, "f32": 4}
PRODUCT = re.compile(r"stablehlo\.(?:convolution|dot_general)\(?.* : (\(.*\) -> .*)")
TENSOR = re.compile(r"tensor<([^>]*)>")
KEY = jax.random.key(0).dtype  # negligible in size
BEGIN, END = "<!-- computed by docs/scaling.py: begin -->", "<!-- computed by docs/scaling.py: end -->"


class Chip(NamedTuple):
    """Published figures of an accelerator.

    Attributes:
        name: Name in the tables.
        teraflops: Peak of dense bfloat16 products, in 10^12 operations per second.
        bandwidth: Memory bandwidth, in 10^9 bytes per second.
        memory: Memory, in 10^9 bytes.
        source: Markdown link to the source of the figures.
    """

    name: str
    teraflops: float
    bandwidth: float
    memory: float
    source: str


CHIPS = (
    Chip("TPU v4", 275, 1228, 32, "[Google](https://cloud.google.com/tpu/docs/v4)"),
    Chip("TPU v5e", 197, 819, 16, "[Google](https://cloud.google.com/tpu/docs/v5e)"),
    Chip("TPU v5p", 459, 2765, 95, "[Google](https://cloud.google.com/tpu/docs/v5p)"),
    Chip("A100 80 GB SXM", 312, 2039, 80, "[NVIDIA](https://www.nvidia.com/en-us/data-center/a100/)"),
    Chip("H100 SXM", 989, 3350, 80, "[NVIDIA](https://www.nvidia.com/en-us/data-center/h100/)"),
)


class Cost(NamedTuple):
    """Cost of one program.

    Attributes:
        flops: Floating-point operations, as XLA counts them.
        most: Bytes read and written, as XLA counts them before fusion.
        least: Bytes of the operands and results of convolutions and matrix products only.
        kept: Bytes of the arguments: weights or state, and the batch.
        memory: Estimate of the peak memory in bytes.
    """

    flops: float
    most: float
    least: float
    kept: int
    memory: int

    @property
    def intensity(self) -> float:
        """Operations per byte, with all that can be fused."""
        return self.flops / self.least

    def seconds(self, chip: Chip) -> tuple[float, float]:
        """Lower bounds of the time in seconds: for the operations, and for the bytes."""
        return self.flops / (chip.teraflops * 1e12), self.least / (chip.bandwidth * 1e9)


def costs(name: str, memory: bool = True) -> dict[str, Cost]:
    """Costs of inference and a training step in bfloat16; all layers train, by SGD with momentum.

    Args:
        name: Name of the network.
        memory: Whether to compile the training step to measure its memory.
    """
    inference, variables, batch = _inference(name, "bfloat16")
    step, state, labelled = _step(name, "bfloat16")
    costs = {"inference": _cost(inference, variables, batch), "training step": _cost(step, state, *labelled)}
    if memory:
        step, state, labelled = _step(name, "float32")
        unchecked = [jax.export.DisabledSafetyCheck.platform()]  # compiles the TPU program on this CPU
        exported = jax.export.export(jax.jit(step), platforms=["tpu"], disabled_checks=unchecked)(state, *labelled)
        placed: Any = jax.jit(exported.call, donate_argnums=0).lower(state, *labelled).compile().memory_analysis()
        used = placed.argument_size_in_bytes + placed.output_size_in_bytes + placed.temp_size_in_bytes
        costs["training step"] = costs["training step"]._replace(memory=used - placed.alias_size_in_bytes)
    return costs


def _inference(name: str, dtype: str) -> tuple[Any, Any, Any]:
    model = build_model(name, dtype=dtype)
    images = jax.ShapeDtypeStruct((BATCH, *model.input_shape[1:]), "float32")
    return model.apply, jax.eval_shape(model.init_variables), images


def _step(name: str, dtype: str) -> tuple[Any, Any, Any]:
    model = build_model(name, dtype=dtype)
    images = jax.ShapeDtypeStruct((BATCH, *model.input_shape[1:]), "float32")
    labels = jax.ShapeDtypeStruct((BATCH, model.output_shape[-1]), "float32")
    optimizer = optax.sgd(0.1, momentum=0.9)
    state = jax.eval_shape(lambda: train.create_state(model, model.init_variables(), optimizer))
    objective = train.make_objective(model, "categorical_crossentropy")
    return functools.partial(take_step, objective=objective, optimizer=optimizer), state, (images, labels)


def _cost(function: Any, first: Any, *batch: Any) -> Cost:
    lowered = jax.jit(function).trace(first, *batch).lower(lowering_platforms=("tpu",))
    counted: Any = lowered.cost_analysis()
    kept = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves((first, batch)) if leaf.dtype != KEY)
    sizes = [
        sum(math.prod(map(int, shape)) * BYTES[kind] for *shape, kind in (text.split("x") for text in types))
        for types in map(TENSOR.findall, PRODUCT.findall(lowered.as_text()))
    ]
    largest = max(sizes)
    return Cost(counted["flops"], counted["bytes accessed"], sum(sizes), kept, kept + 2 * largest)


def cost_rows(name: str, memory: bool = True) -> Iterator[tuple[str, str]]:
    """Yields the rows of both tables for a network; `memory` as for `costs`."""
    for title, cost in costs(name, memory).items():
        row = [model_info(name).function, title, f"{cost.flops / 1e9:,.0f}", f"{cost.least / 1e9:.2f}"]
        row += [f"{cost.most / 1e9:.1f}", f"{cost.intensity:.0f}", f"{cost.kept / 1e6:,.0f}"]
        row += [f"{cost.memory / 1e9:.2f}"]
        times = []
        for chip in CHIPS:
            computing, moving = cost.seconds(chip)
            times.append(f"{max(computing, moving) * 1e3:.2f} {'c' if computing > moving else 'm'}")
        yield _row(row), _row([*row[:2], *times])


def tables(rows: list[tuple[str, str]]) -> str:
    """Formats the tables."""
    heads = ["network", "program", "GFLOP", "GB at least", "GB at most", "FLOP per byte", "MB kept", "GB in all"]
    chips = [_row(["chip", "TFLOP/s, bfloat16", "GB/s", "memory GB", "FLOP per byte at the ridge", "figures of"])]
    chips.append(_rule(6))
    for chip in CHIPS:
        ridge = f"{chip.teraflops * 1e3 / chip.bandwidth:.0f}"
        chips.append(
            _row([chip.name, f"{chip.teraflops}", f"{chip.bandwidth:,}", f"{chip.memory}", ridge, chip.source])
        )
    program = [_row(heads), _rule(len(heads)), *(row for row, _ in rows)]
    times = [_row(["network", "program", *(chip.name for chip in CHIPS)]), _rule(2 + len(CHIPS))]
    times += [row for _, row in rows]
    titles = (
        f"Batches of {BATCH} at each network's own size, bfloat16, counted by XLA of jax {jax.__version__}:",
        "Published figures of the chips:",
        "Lower bounds of the time in milliseconds (c: compute-bound, m: memory-bound):",
    )
    return "\n\n".join(
        f"{title}\n\n" + "\n".join(table) for title, table in zip(titles, (program, chips, times), strict=True)
    )


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _rule(count: int) -> str:
    return "|" + "---|" * count


def main() -> None:
    """Rewrites the text between the markers."""
    rows = [row for name in NETWORKS for row in cost_rows(name)]
    text = PAGE.read_text(encoding="utf-8")
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n\n{tables(rows)}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
