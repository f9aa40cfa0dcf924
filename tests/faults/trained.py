"""A run in a process of its own, for the faults that end it."""

import os
from multiprocessing.connection import Connection
from pathlib import Path

EPOCHS, BATCHES = 3, 5
EVENTS = EPOCHS * (BATCHES + 1)  # the run tells of every step and every epoch
PRELOADED = ["jax", "flax", "grain", "optax", "orbax.checkpoint", "flaxapps.train", "tests.train.small"]


def run(folder: str, final: str, cache: str, told: Connection, full_disk: tuple[int, int] | None = None) -> None:
    """Trains from the newest checkpoint on, saves after every step, and writes the parameters at the end.

    Args:
        folder: Of the checkpoints.
        final: Where the parameters go; where an error goes instead, with the suffix ".error".
        cache: Of what JAX compiles.
        told: Is sent something for every event.
        full_disk: (event, bytes): from that event on, no file can be longer.
    """
    os.environ["JAX_PLATFORMS"] = "cpu"
    import resource

    import jax
    import numpy as np
    import optax

    jax.config.update("jax_num_cpu_devices", 1)
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    from flaxapps import train
    from tests.train import small

    events = 0

    def tell(event: object) -> None:
        nonlocal events
        events += 1
        if full_disk is not None and events == full_disk[0]:
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (full_disk[1], hard))
        told.send(None)

    try:
        result, _ = small.fit(
            small.small_data(16 * (BATCHES - 1) + 4),
            small.small_model(dropout=0.5),
            optimizer=optax.adam(0.01),
            epochs=EPOCHS,
            checkpoint_dir=train.CheckpointFolder(folder, every=1, resume=True),
            callbacks=[tell],
        )
    except train.CheckpointError as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        Path(final).with_suffix(".error").write_text(str(error))
        return
    leaves = {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(result.variables)
    }
    part = Path(final).with_suffix(".part.npz")
    np.savez(part, **leaves, losses=np.array(result.history["loss"]))
    os.replace(part, final)
