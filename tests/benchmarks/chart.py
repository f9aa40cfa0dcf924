"""A chart of what `tests.benchmarks.inference` measured: `python -m tests.benchmarks.chart RESULTS.json CHART.svg`.

Names of runtimes after these choose which are drawn. README's shows those of LOOKS.
"""

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Labels and colours: two forms of ours, then what they are compared with. Others go by their names.
LOOKS = {
    "flaxapps-fast": ("flaxapps, fast", "#00695c"),
    "flaxapps": ("flaxapps, default", "#4db6ac"),
    "onnxruntime": ("ONNX Runtime", "#37474f"),
    "openvino-float32": ("OpenVINO, float32", "#546e7a"),
    "keras-tensorflow": ("Keras on TensorFlow", "#78909c"),
    "torch": ("torch", "#a7b5bc"),
    "keras-jax": ("Keras on JAX", "#d3dade"),
}


def draw(report: Mapping[str, Any], path: str, batch: int = 8, peers: Sequence[str] = ()) -> None:
    """Writes images per second of the runtimes, a group of bars for each network.

    Args:
        report: What the benchmark writes as JSON.
        path: PNG or SVG.
        batch: Which batch size.
        peers: Which runtimes; all that were measured if there are none.
    """
    from matplotlib.figure import Figure

    chosen = [each for each in report["measurements"] if each["batch"] == batch]
    networks = list(dict.fromkeys(each["network"] for each in chosen))
    speeds = {(each["peer"], each["network"]): batch / statistics.median(each["seconds"]) for each in chosen}
    peers = peers or list(dict.fromkeys(each["peer"] for each in chosen))
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    axes = figure.subplots()
    width = 0.84 / len(peers)
    for place, peer in enumerate(peers):
        label, colour = LOOKS.get(peer, (peer, None))
        positions = [index + (place - (len(peers) - 1) / 2) * width for index in range(len(networks))]
        heights = [speeds.get((peer, network), 0) for network in networks]
        drawn = axes.bar(positions, heights, width, label=label, color=colour)
        axes.bar_label(drawn, [f"{height:.0f}" if height else "" for height in heights], fontsize=6.5, padding=1)
    axes.set_xticks(range(len(networks)), networks)
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel(f"images per second, batches of {batch}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize="small", frameon=False)
    about = report["machine"]
    chosen_versions = [versions for peer, versions in report["versions"].items() if peer in peers]
    packages = {key: value for each in chosen_versions for key, value in each.items() if key not in ("jaxlib", "flax")}
    versions = ", ".join(f"{key} {value}" for key, value in packages.items())
    axes.set_title(
        f"{about['processor']}, {about['cores']} cores, float32, {about['date'][:10]}\n{versions}",
        fontsize=7,
        loc="left",
        color="#555555",
    )
    figure.savefig(path)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), sys.argv[2], peers=sys.argv[3:])
