"""Where the arrays of a run lie on a mesh of devices: which are cut into parts, and along which axis."""

from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

DATA, MODEL = "data", "model"
LARGE = 1 << 20  # numbers; smaller kernels are not worth the exchange of what they compute


@dataclass(frozen=True)
class Layout:
    """Kernels of large dense layers lie in parts along "model", what the optimizer keeps along "data" as well if asked.

    Everything else is whole on every device. The rule goes by the last name of an array's path and by its shape, so
    that it holds for parameters and for what Optax keeps for each of them alike.

    Attributes:
        mesh: The devices, along "data" and "model".
        shard_optimizer: Whether each device along "data" keeps only its part of the optimizer's arrays, as in stage 1
            of ZeRO (https://arxiv.org/abs/1910.02054).
    """

    mesh: Mesh
    shard_optimizer: bool = False

    def spec(self, path: tuple[Any, ...], leaf: Any) -> PartitionSpec:
        """How one array is cut.

        Args:
            path: Its keys in the tree, from the root on.
            leaf: The array, or its shape and type.
        """
        axes: list[str | None] = [None] * leaf.ndim
        if leaf.ndim == 2 and _name(path[-1:]) == "kernel" and leaf.size >= LARGE:
            axes[1] = MODEL if self._divides(MODEL, leaf.shape[1]) else None
        if self.shard_optimizer and _name(path[:1]) == "optimizer_state":
            sizes = [0 if axis else size for axis, size in zip(axes, leaf.shape, strict=True)]
            fitting = [place for place, size in enumerate(sizes) if size and self._divides(DATA, size)]
            if fitting:
                axes[max(fitting, key=sizes.__getitem__)] = DATA
        return PartitionSpec(*axes)

    def shardings(self, tree: Any) -> Any:
        """The sharding of every array of a tree, such as a `TrainState` or variables."""
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: NamedSharding(self.mesh, self.spec(path, leaf)), tree
        )

    def __call__(self, tree: Any) -> Any:
        """Within a compiled function: the tree, which XLA has to leave in this layout."""
        return jax.lax.with_sharding_constraint(tree, self.shardings(tree))

    def _divides(self, axis: str, size: int) -> bool:
        parts = int(self.mesh.shape[axis])
        return parts > 1 and size % parts == 0


def _name(keys: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(keys, simple=True)
