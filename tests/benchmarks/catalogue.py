"""Images per second and operations of all networks: `python -m tests.benchmarks.catalogue RESULTS.json CHART.svg`.

Every network has a process of its own, one after the other. The docs show `docs/pictures/networks.json` and the chart.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flaxapps.registry import list_models, model_info
from tests.benchmarks import inference
from tests.places import ROOT

BATCH = 4
SECONDS = 1.5  # of computing, after a first batch


def measure(name: str) -> dict[str, float]:
    """Images per second of batches, optimized as `compile(optimize="default")` does, and GFLOP for one image."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    import flaxapps
    from flaxapps.inference.predict import forward
    from flaxapps.registry import build_model
    from flaxapps.runtime.process import keep_freed_memory
    from tests.benchmarks.random_weights import random_variables

    keep_freed_memory()
    size = model_info(name).default_size
    model = build_model(name, input_shape=(size, size, 3))
    shapes = jax.eval_shape(model.init_variables)
    one = [jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)]
    costs: Any = jax.jit(forward, static_argnums=(0, 1)).lower(model, None, shapes, one).cost_analysis()
    compiled = flaxapps.compile(model, random_variables(shapes), BATCH, optimize="default")
    x = np.random.default_rng(0).random((BATCH, size, size, 3), np.float32)
    jax.block_until_ready(compiled(x))
    times: list[float] = []
    while sum(times) < SECONDS or len(times) < 2:
        start = time.perf_counter()
        jax.block_until_ready(compiled(x))
        times.append(time.perf_counter() - start)
    return {"gflop": costs["flops"] / 1e9, "images_per_second": BATCH / statistics.median(times)}


def measure_all() -> dict[str, Any]:
    """Measurements of all networks, and the machine."""
    networks = {}
    for name in list_models():
        command = [sys.executable, "-m", "tests.benchmarks.catalogue", "--network", name]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        networks[name] = json.loads(done.stdout.splitlines()[-1])
        print(name, networks[name], flush=True)
    import jax

    found = inference.machine()
    machine = {
        "processor": found["processor"],
        "cores": found["cores"],
        "date": found["date"][:10],
        "jax": jax.__version__,
        "python": platform.python_version(),
        "batch": BATCH,
    }
    return {"machine": machine, "networks": networks}


def draw(report: Mapping[str, Any], path: str) -> None:
    """Writes the chart of published accuracy against images per second: a line for a family, a point for a network."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    families: dict[str, list[tuple[float, float, str]]] = {}
    for name, measured in report["networks"].items():
        info = model_info(name)
        if info.top1 is not None:
            point = (measured["images_per_second"], info.top1, info.function)
            families.setdefault(info.family, []).append(point)
    markers = "os^vDP"
    for index, points in enumerate(families.values()):
        points.sort(reverse=True)
        speeds, accuracies, names = zip(*points, strict=True)
        marker = markers[index // 10 % len(markers)]
        axes.plot(speeds, accuracies, f"{marker}-", color=f"C{index % 10}", linewidth=1, markersize=5)
        for point in {0, len(points) - 1}:
            axes.annotate(
                names[point], (speeds[point], accuracies[point]), (3, -8), textcoords="offset points", fontsize=6
            )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.margins(x=0.12)  # names stand to the right of their points
    axes.set_xlabel(f"images per second, batches of {report['machine']['batch']}, each network at its default size")
    axes.set_ylabel("top-1 accuracy on ImageNet in percent, as Keras publishes it")
    axes.grid(alpha=0.3, which="both", linewidth=0.4)
    axes.spines[["top", "right"]].set_visible(False)
    machine = report["machine"]
    axes.set_title(
        f"{machine['processor']}, {machine['cores']} cores, float32, flaxapps default, jax {machine['jax']}, "
        f"{machine['date']}",
        fontsize=7,
        loc="left",
        color="#555555",
    )
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Measures all networks, or one for the process that measures all."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.catalogue", description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="?", help="JSON file to write; with --draw, to read")
    parser.add_argument("chart", nargs="?", help="SVG file to write")
    parser.add_argument("--draw", action="store_true", help="only draw what was measured before")
    parser.add_argument("--network", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.network:
        print(json.dumps(measure(options.network)))
        return
    report = json.loads(Path(options.results).read_text()) if options.draw else measure_all()
    if not options.draw:
        Path(options.results).write_text(json.dumps(report, indent=1) + "\n")
    draw(report, options.chart)


if __name__ == "__main__":
    main()
