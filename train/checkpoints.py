"""Checkpoints of a run, with Orbax: whole or not there, checked against the run that wants to go on from them."""

import contextlib
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax

from flaxapps.distributed import is_anywhere, is_first
from flaxapps.manifests import difference, read_manifest, write_manifest
from flaxapps.paths import as_path, in_bucket
from flaxapps.reports import replacing
from train.checksums import check_seal, sealed
from train.datasets import Dataset
from train.errors import CheckpointError
from train.position import Position
from train.run_description import run_differences
from train.state import TrainState
from train.stored_state import from_stored, like, to_stored

DESCRIPTION = "run.json"
MANIFEST = "data.json.gz"
KEPT = 2  # the newest, and the one before for when that turns out to be broken


def checkpoint_folder(place: str | os.PathLike[str]) -> Path:
    """A folder as Orbax wants it.

    Raises:
        ValueError: It is in a bucket that Orbax does not write to: https://github.com/google/orbax/pull/2739
        ImportError: As `as_path`.
    """
    if os.fspath(place).startswith("s3://"):
        raise ValueError(
            f"Orbax keeps no checkpoints in s3://, where {place} is: give a folder of this machine or in gs://, and "
            "copy what comes out"
        )
    return as_path(place) if in_bucket(place) else Path(place).absolute()


class Checkpoints:
    """The folder of a run: numbered by step, a folder each, with what the run is beside them.

    A checkpoint holds "variables", a tree as `Model.apply` takes it; "training", the arrays of the optimizer and the
    random key; and "position", JSON with the place in the data, the history, the description of the run and checksums
    of all this: the formats of arrays have none, and a bit that a disk loses would train on unseen. It is written in
    the background under another name and renamed when it is whole, so that a process may be killed at any moment. Kept
    are the newest two and the best.
    """

    def __init__(self, folder: str | os.PathLike[str], description: Mapping[str, Any], data: Dataset):
        """Opens the folder, or makes it.

        Args:
            folder: The folder.
            description: From `describe_run`.
            data: What the run trains on.

        Raises:
            ValueError: As `checkpoint_folder`.
        """
        import orbax.checkpoint as ocp

        self.folder = checkpoint_folder(folder)
        self._description = dict(description)
        self._data = data
        self._orbax: Any = ocp
        self._preservation = _LastAndBest()
        self._manager: Any = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=self._preservation,
                cleanup_tmp_directories=True,
            ),
            item_names=("variables", "training", "position"),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # While another error is on its way, what goes wrong here does not hide it.
        with contextlib.suppress(Exception) if error else contextlib.nullcontext():
            self._manager.close()

    def start(self, state: TrainState) -> tuple[TrainState, Position]:
        """A run from the beginning.

        Raises:
            CheckpointError: There are checkpoints of another run.
        """
        if self._manager.all_steps():
            raise CheckpointError(
                f"{self.folder} holds checkpoints already: resume=True goes on from them, or take another folder"
            )
        if is_first():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_manifest(self.folder / MANIFEST, self._data.manifest())
            with replacing(self.folder / DESCRIPTION) as stream:
                json.dump(self._description, stream, indent=1)
        return state, Position()

    def resume(self, state: TrainState) -> tuple[TrainState, Position]:
        """The newest checkpoint that can be read; the beginning where there is none at all.

        A checkpoint that cannot be read is renamed, with a warning, and the one before is taken.

        Args:
            state: A state of the same structure, which says where the arrays go; it is not used up.

        Raises:
            CheckpointError: The run is another one, or no checkpoint can be read.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        if not steps:
            return self.start(state)
        self._check_same_run()
        for step in steps:
            loaded, failure = None, ""
            try:
                loaded = self.load(step, state)
            except CheckpointError as error:
                failure = str(error)
            if not is_anywhere(loaded is None):
                assert loaded is not None
                return loaded
            self._set_aside(step, failure or "Another process could not read a checkpoint")
        raise CheckpointError(f"None of the {len(steps)} checkpoints in {self.folder} can be read")

    def save(self, state: TrainState, position: Position, best_step: int | None) -> None:
        """Writes a checkpoint in the background, when the one before is written.

        Args:
            state: The state.
            position: Where it belongs.
            best_step: The step of the checkpoint that is kept as the best so far.

        Raises:
            CheckpointError: This one or the one before could not be written.
        """
        arguments = self._orbax.args
        # Copies: the next step uses the arrays up while they are still being written.
        variables, training = jax.tree.map(jax.numpy.copy, to_stored(state))
        record = {"position": position.to_json(), "run": self._description}
        record = sealed(record, {"variables": variables, "training": training})
        self._preservation.best_step = best_step
        try:
            self._manager.wait_until_finished()
            if position.step in self._manager.all_steps():  # saved within the epoch that ends at this step
                self._manager.delete(position.step)
            self._manager.save(
                position.step,
                args=arguments.Composite(
                    variables=arguments.StandardSave(variables),
                    training=arguments.StandardSave(training),
                    position=arguments.JsonSave(record),
                ),
                force=True,
            )
        except Exception as error:
            raise self._unwritten(error) from error

    def finish(self) -> Path | None:
        """Waits until all are written; the newest, or None where there is none.

        Raises:
            CheckpointError: The last one could not be written.
        """
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._unwritten(error) from error
        return self._newest_on_disk()

    def load(self, step: int, state: TrainState) -> tuple[TrainState, Position]:
        """The checkpoint of a step.

        Args:
            step: The step.
            state: A state of the same structure, which says where the arrays go; it is not used up.

        Raises:
            CheckpointError: It cannot be read.
        """
        arguments = self._orbax.args
        variables, training = jax.tree.map(like, to_stored(state))
        try:
            restored = self._manager.restore(
                step,
                args=arguments.Composite(
                    variables=arguments.StandardRestore(variables),
                    training=arguments.StandardRestore(training),
                    position=arguments.JsonRestore(),
                ),
            )
            record = restored["position"]
            check_seal(record, {name: restored[name] for name in ("variables", "training")})
            return from_stored(state, restored["variables"], restored["training"]), Position.from_json(
                record["position"]
            )
        except Exception as error:  # Orbax and its stores raise all kinds
            raise CheckpointError(
                f"The checkpoint {self.folder / str(step)} cannot be read ({type(error).__name__}: {error})"
            ) from error

    def newest(self) -> Path | None:
        """The newest checkpoint that is there, when all are written or have failed; None where there is none."""
        with contextlib.suppress(CheckpointError):
            return self.finish()
        return self._newest_on_disk()

    def _unwritten(self, error: Exception) -> CheckpointError:
        return CheckpointError(
            f"A checkpoint could not be written ({type(error).__name__}: {error}). The last good one: "
            f"{self._newest_on_disk() or 'none'}"
        )

    def _set_aside(self, step: int, failure: str) -> None:
        if is_first():
            broken = self.folder / f"broken-{step}"
            while broken.exists():
                broken = broken.with_name(f"{broken.name}-again")
            warnings.warn(f"{failure}. It is renamed to {broken.name}; trying the one before.", stacklevel=5)
            (self.folder / str(step)).rename(broken)
        is_anywhere(False)  # the others wait until it is renamed
        self._manager.reload()

    def _newest_on_disk(self) -> Path | None:
        step = self._manager.latest_step()
        return None if step is None else self.folder / str(step)

    def _check_same_run(self) -> None:
        try:
            saved = json.loads((self.folder / DESCRIPTION).read_text())
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{self.folder} has no readable {DESCRIPTION}: {error}") from error
        lines = run_differences(saved, self._description, self._data_differences)
        if lines or self._description != saved:
            raise CheckpointError(
                "\n  ".join([f"The run in {self.folder} is another one and cannot go on with these arguments:", *lines])
            )

    def _data_differences(self) -> list[str]:
        """Of what the manifests say; none where the saved one cannot be read."""
        with contextlib.suppress(OSError, ValueError):
            return difference(read_manifest(self.folder / MANIFEST), self._data.manifest())
        return []


@dataclass
class _LastAndBest:
    """Which checkpoints Orbax keeps. Its own policy for the best reads a file of every checkpoint, whole or not."""

    best_step: int | None = None

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        last = [info.step for info in checkpoints][-KEPT:]
        return [info.step in last or info.step == self.best_step for info in checkpoints]
