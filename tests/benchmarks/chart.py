"""A chart of what `tests.benchmarks.inference` measured: `python -m tests.benchmarks.chart RESULTS.json CHART.svg`."""

import json
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def draw(report: Mapping[str, Any], path: str, batch: int = 8) -> None:
    """Writes images per second of every runtime, a group of bars for each network.

    Args:
        report: What the benchmark writes as JSON.
        path: PNG or SVG.
        batch: Which batch size.
    """
    from matplotlib.figure import Figure

    chosen = [each for each in report["measurements"] if each["batch"] == batch]
    networks = list(dict.fromkeys(each["network"] for each in chosen))
    peers = list(dict.fromkeys(each["peer"] for each in chosen))
    figure = Figure(figsize=(1.5 + 2.2 * len(networks), 3.6), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(peers)
    for place, peer in enumerate(peers):
        speeds = {
            each["network"]: batch / statistics.median(each["seconds"]) for each in chosen if each["peer"] == peer
        }
        positions = [networks.index(network) + (place - (len(peers) - 1) / 2) * width for network in speeds]
        axes.bar(positions, list(speeds.values()), width, label=peer)
    axes.set_xticks(range(len(networks)), networks)
    axes.set_ylabel(f"images per second, batch {batch}")
    axes.legend(fontsize="small")
    about = report["machine"]
    packages = {key: value for each in report["versions"].values() for key, value in each.items()}
    axes.set_title(f"{about['processor']}, {about['cores']} cores, {about['date'][:10]}", fontsize="small")
    figure.text(0.01, -0.06, ", ".join(f"{key} {value}" for key, value in packages.items()), fontsize=6)
    figure.savefig(path, bbox_inches="tight")


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), sys.argv[2])
