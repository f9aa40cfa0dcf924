"""`flaxapps finetune --find-rate`: a learning-rate range test of the first phase."""

import argparse
from pathlib import Path

from flaxapps.cli.finetune.folder import RATES_FILE
from flaxapps.cli.finetune.optimizer import build_optimizer
from flaxapps.cli.finetune.plan import Plan
from flaxapps.runtime.console import open_console
from flaxapps.runtime.distributed import is_first
from flaxapps.train.figures import write_range_test
from flaxapps.train.options import Devices
from flaxapps.train.range_test import find_rate, rounded


def run_range_test(plan: Plan, arguments: argparse.Namespace, folder: Path, *, caches: bool) -> None:
    """Runs the test, plots it to a file in the folder, and prints the suggested rate.

    Args:
        plan: The resolved arguments.
        arguments: The completed arguments.
        folder: The output folder.
        caches: Whether to cache the features of the frozen layers.

    Raises:
        TrainingError: The first loss is NaN or infinite.
    """
    phase = plan.phases[0]
    console = open_console()
    console.print(f"Testing learning rates on {phase.title}, one step each")
    test = find_rate(
        plan.model,
        plan.load(),
        plan.data,
        optimizer=lambda rate: build_optimizer(arguments, plan.model, phase.optimizer, rate),
        batch_size=arguments.batch_size,
        frozen=phase.frozen,
        cache_features=caches,
        seed=arguments.seed,
        augmentation=plan.augmentation,
        preprocess=plan.preprocessing,
        label_smoothing=arguments.label_smoothing,
        class_weights=arguments.class_weights,
        devices=Devices(mesh=arguments.mesh, shard_optimizer=arguments.shard_optimizer),
    )
    if is_first():
        folder.mkdir(parents=True, exist_ok=True)
        write_range_test(*test, folder / RATES_FILE)
    falling = "" if min(test.smoothed) < test.smoothed[-1] else ", where it was still falling"
    console.print(
        f"{len(test.rates)} steps, from {test.rates[0]:.1g} to {test.rates[-1]:.1g}; the smallest loss is "
        f"{min(test.smoothed):.3g}, at {10 * test.suggested:.1g}{falling}: {folder / RATES_FILE}"
    )
    console.print(f"Suggested: --learning-rate {rounded(test.suggested):g}, a tenth of that. Look at the picture, too.")
