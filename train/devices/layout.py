"""Layout: which arrays of the state are sharded over a device mesh, and along which axis."""

from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

DATA, MODEL = "data", "model"
LARGE = 1 << 20  # elements; for smaller kernels, exchanging the outputs costs more than it saves


@dataclass(frozen=True)
class Layout:
    """Sharding of the state over a mesh.

    Kernels of large dense layers are sharded along "model", the optimizer's arrays along "data" too if asked for.
    Everything else is replicated. The rule depends only on the last name of an array's path and on its shape, and so
    treats a parameter and what Optax keeps for it alike.

    Attributes:
        mesh: Devices along "data" and "model".
        shard_optimizer: Whether to shard the optimizer's arrays along "data", as in stage 1 of ZeRO
            (https://arxiv.org/abs/1910.02054).
    """

    mesh: Mesh
    shard_optimizer: bool = False

    def spec(self, path: tuple[Any, ...], leaf: Any) -> PartitionSpec:
        """Returns the partition spec of one array.

        Args:
            path: Its keys in the tree, from the root.
            leaf: The array, or its shape and dtype.
        """
        axes: list[str | None] = [None] * leaf.ndim
        if leaf.ndim == 2 and _name(path[-1:]) == "kernel" and leaf.size >= LARGE:
            axes[1] = MODEL if self._divides(MODEL, leaf.shape[1]) else None
        if self.shard_optimizer and _name(path[:1]) == "optimizer_state":
            sizes = [0 if axis else size for axis, size in zip(axes, leaf.shape, strict=True)]
            # The largest axis that is not sharded yet and that the devices divide.
            fitting = [place for place, size in enumerate(sizes) if size and self._divides(DATA, size)]
            if fitting:
                axes[max(fitting, key=sizes.__getitem__)] = DATA
        return PartitionSpec(*axes)

    def shardings(self, tree: Any) -> Any:
        """Returns the sharding of every array of a tree, such as a `TrainState` or variables."""
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: NamedSharding(self.mesh, self.spec(path, leaf)), tree
        )

    def __call__(self, tree: Any) -> Any:
        """Constrains a tree to this layout, inside a compiled function."""
        return jax.lax.with_sharding_constraint(tree, self.shardings(tree))

    def _divides(self, axis: str, size: int) -> bool:
        parts = int(self.mesh.shape[axis])
        return parts > 1 and size % parts == 0


def _name(keys: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(keys, simple=True)
