"""Groups of arguments of `fit`: where it runs, what it saves, and how a step computes."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import jax

from flaxapps.train.freezing.features import MEMORY_LIMIT
from flaxapps.transforms.optimize import Mode, checked_mode


@dataclass(frozen=True)
class Devices:
    """Devices, and what is sharded over them: the `devices` of `fit`.

    Attributes:
        use: The devices; None for all.
        mesh: Number of devices along "data" and "model", such as {"data": 4, "model": 2}: kernels of large dense layers
            are sharded along "model" (`flaxapps.train.devices.layout.Layout`). None: all along "data".
        shard_optimizer: Whether to shard the optimizer's arrays along "data".
        results: Device or sharding for the arrays of the result. None for those of the given variables; with a `mesh`
            or `shard_optimizer`, and in a run of several processes, for those of the run.

    >>> Devices(mesh={"data": 4, "model": 2}).shard_optimizer
    False
    """

    use: Sequence[jax.Device] | None = None
    mesh: Mapping[str, int] | None = None
    shard_optimizer: bool = False
    results: jax.Device | jax.sharding.Sharding | None = None

    def __post_init__(self) -> None:
        """Checks the devices.

        Raises:
            TypeError: `use` is not a sequence of devices.
        """
        listed = isinstance(self.use, Sequence) and all(isinstance(each, jax.Device) for each in self.use)
        if self.use is not None and not (listed and self.use):
            raise TypeError(f"devices should be a list such as jax.devices()[:1], or None for all; got {self.use!r}")
        if self.results is not None and not isinstance(self.results, jax.Device | jax.sharding.Sharding):
            raise TypeError(f"results should be a device or a sharding, such as jax.devices()[0]; got {self.results!r}")

    @classmethod
    def of(cls, given: Self | Sequence[jax.Device] | jax.Device | None) -> Self:
        """Returns a group, as `fit` takes it, of a device, of a plain list of them, or of None."""
        if isinstance(given, jax.Device):
            given = [given]
        return given if isinstance(given, cls) else cls(given)  # type: ignore[arg-type]  # checked above


@dataclass(frozen=True)
class CheckpointFolder:
    """A folder of checkpoints, and how it is used: the `checkpoint_dir` of `fit`, in place of a plain path.

    Attributes:
        path: The folder, local or in gs://.
        every: Steps between checkpoints within an epoch; None saves at the ends of epochs.
        resume: Whether to resume from the newest checkpoint; without one the run starts from the beginning.

    >>> CheckpointFolder("run", resume=True)
    CheckpointFolder(path='run', every=None, resume=True)
    """

    path: str | os.PathLike[str]
    every: int | None = None
    resume: bool = False

    def __post_init__(self) -> None:
        """Checks the attributes.

        Raises:
            ValueError: There is no path, or `every` is below 1.
        """
        if not os.fspath(self.path or ""):
            raise ValueError("resume and every need a path: the checkpoint_dir")
        if self.every is not None and self.every < 1:
            raise ValueError(f"every (steps between checkpoints) should be at least 1, got {self.every}")

    @classmethod
    def of(cls, given: Self | str | os.PathLike[str] | None) -> Self | None:
        """Returns a group, as `fit` takes it, of a plain path; None for no folder."""
        if given is not None and not isinstance(given, cls | str | os.PathLike):
            raise TypeError(f"checkpoint_dir should be a folder or train.CheckpointFolder(...), got {given!r}")
        return given if given is None or isinstance(given, cls) else cls(given)  # type: ignore[arg-type]  # a path


@dataclass(frozen=True)
class FeatureCache:
    """Where cached features are kept: the `cache_features` of `fit`, in place of True.

    Attributes:
        memory_limit: Upper bound for features in memory, in bytes; more go to temporary files.
        folder: Folder for these files; None for the system's temporary folder.
    """

    memory_limit: int = MEMORY_LIMIT
    folder: str | os.PathLike[str] | None = None

    @classmethod
    def of(cls, given: Self | bool) -> Self | None:
        """Returns a group, as `fit` takes it, of True; None of False, for no cache."""
        if given is not None and not isinstance(given, cls | bool):
            raise TypeError(f"cache_features should be True, False or train.FeatureCache(folder=...), got {given!r}")
        return given if isinstance(given, cls) else cls() if given else None


@dataclass(frozen=True)
class Computation:
    """How a step computes: the `computation` of `fit`. These save memory or time and change results only by rounding.

    Attributes:
        accumulate: Number of parts in which a batch is computed, one after the other, to save memory.
            BatchNormalization sees each part by itself.
        remat: Whether to recompute activations in the backward pass instead of storing them.
        optimize_frozen: How frozen layers run when features cannot be cached: "default" folds BatchNormalization,
            "fast" also uses Winograd's products on CPUs (`flaxapps.optimize` gives the errors). They must be an
            unbroken beginning of the model. The returned variables are those of the original model, not the optimized
            ones.
        loss_scaling: Whether to scale the loss and skip steps whose gradients overflow, as `dynamic_loss_scale` does;
            None for models that compute in float16.

    >>> Computation(accumulate=4).remat
    False
    """

    accumulate: int = 1
    remat: bool = False
    optimize_frozen: Mode | None = None
    loss_scaling: bool | None = None

    def __post_init__(self) -> None:
        """Checks the attributes.

        Raises:
            ValueError: `accumulate` is below 1, or the mode is unknown.
        """
        if self.accumulate < 1:
            raise ValueError(f"accumulate should be at least 1, got {self.accumulate}")
        if self.optimize_frozen is not None:
            object.__setattr__(self, "optimize_frozen", checked_mode(self.optimize_frozen, "optimize_frozen"))

    @classmethod
    def of(cls, given: Self | None) -> Self:
        """Returns a group, as `fit` takes it, of None."""
        if given is not None and not isinstance(given, cls):
            raise TypeError(f"computation should be a group such as train.Computation(accumulate=2), got {given!r}")
        return given or cls()
