"""A run of `fit`, here or as one of several processes: `python -m tests.train.fit_process FOLDER OPTIONS`."""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from flaxapps import train
from flaxapps.cli.arguments.shared import add_distributed
from flaxapps.cli.options import join_processes
from flaxapps.runtime import distributed
from flaxapps.runtime.distributed import is_first
from tests.train import small

BATCHES = 5  # in an epoch, the last of 4 examples


def fit(folder: Path, epochs: int, **options: Any) -> dict[str, Any]:
    """All that comes out of a run that goes on from the newest checkpoint in the folder, as arrays by name."""
    result, losses = small.fit(
        small.small_data(16 * (BATCHES - 1) + 4),
        small.small_model(dropout=0.5),
        optimizer=optax.sgd(0.05, momentum=0.9),
        epochs=epochs,
        validation_data=small.small_data(21, seed=1),
        checkpoint_dir=train.CheckpointFolder(folder, every=1, resume=True),
        **options,
    )
    leaves = jax.tree_util.tree_leaves_with_path(result.variables)
    arrays = {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}
    return arrays | {"losses": np.array(losses), "val_loss": np.array(result.history["val_loss"])}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--slowly", action="store_true")
    parser.add_argument("--lost-after", type=int, default=distributed.LOST_AFTER)
    add_distributed(parser)
    arguments = parser.parse_args()
    distributed.LOST_AFTER = arguments.lost_after
    join_processes(arguments, preemption=True)

    def tell(event: object) -> None:
        if isinstance(event, train.StepEnd):
            print("step", event.step, file=sys.stderr, flush=True)
            time.sleep(0.2 * arguments.slowly)

    try:
        arrays = fit(arguments.folder, arguments.epochs, callbacks=[tell])
    except train.Interrupted as error:
        return 128 + error.signal
    if is_first():
        np.savez(arguments.folder / "final.npz", **arrays)
    return 0


if __name__ == "__main__":
    sys.exit(main())
