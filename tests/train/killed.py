"""A run in a process of its own, for the tests that kill it."""

import os
from multiprocessing.connection import Connection
from pathlib import Path

EPOCHS, BATCHES = 3, 5
PRELOADED = ["jax", "flax", "grain", "optax", "orbax.checkpoint", "train", "tests.train.small"]


def run(folder: str, final: str, cache: str, started: Connection) -> None:
    """Trains from the newest checkpoint on, saves after every step, and writes the parameters at the end."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax
    import numpy as np
    import optax

    jax.config.update("jax_num_cpu_devices", 1)
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    from tests.train import small

    def tell(event: object) -> None:
        started.send(None)

    result, _ = small.fit(
        small.small_data(16 * (BATCHES - 1) + 4),
        small.small_model(dropout=0.5),
        optimizer=optax.adam(0.01),
        epochs=EPOCHS,
        checkpoint_dir=folder,
        checkpoint_every=1,
        resume=True,
        callbacks=[tell],
    )
    leaves = {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(result.variables)
    }
    part = Path(final).with_suffix(".part.npz")
    np.savez(part, **leaves, losses=np.array(result.history["loss"]))
    os.replace(part, final)
