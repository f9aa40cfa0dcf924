"""Orbax checkpoints of a run: written atomically, checksummed, and compared with the run that resumes from them."""

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

from flaxapps.runtime.distributed import is_anywhere, is_first
from flaxapps.runtime.files import as_path, in_bucket, replacing
from flaxapps.runtime.manifests import difference, read_manifest, write_manifest
from flaxapps.train.checkpoints.checksums import check_seal, sealed
from flaxapps.train.checkpoints.description import SETTINGS, run_differences
from flaxapps.train.checkpoints.position import Position
from flaxapps.train.checkpoints.settings import settings_differences, with_new_rates
from flaxapps.train.checkpoints.stored_state import from_stored, like, to_stored
from flaxapps.train.data.datasets import Dataset
from flaxapps.train.errors import CheckpointError
from flaxapps.train.step.state import TrainState

DESCRIPTION = "run.json"
MANIFEST = "data.json.gz"
KEPT = 2  # the newest, and the one before in case the newest is damaged


def checkpoint_folder(place: str | os.PathLike[str]) -> Path:
    """Converts a folder to the absolute path that Orbax takes.

    Raises:
        ValueError: The folder is in s3://, which Orbax cannot write to: https://github.com/google/orbax/pull/2739
        ImportError: The package for the bucket is not installed.
    """
    if os.fspath(place).startswith("s3://"):
        raise ValueError(
            f"Orbax cannot write checkpoints to s3://, got {place}: give a local folder or one in gs://, and copy the "
            "results"
        )
    return as_path(place) if in_bucket(place) else Path(place).absolute()


class Checkpoints:
    """The checkpoint folder of a run: a subfolder per saved step, and the description of the run beside them.

    A checkpoint has three items. "variables" is a tree as `Model.apply` takes it. "training" holds the optimizer's
    arrays and the random key. "position" is JSON: the progress, the history, the description of the run, and checksums
    of it all. The array formats have no checksums, so a flipped bit would otherwise be trained on unnoticed.

    Checkpoints are written in the background under a temporary name and renamed when complete, so the process may be
    killed at any moment. The newest two and the best are kept.
    """

    def __init__(self, folder: str | os.PathLike[str], description: Mapping[str, Any], data: Dataset):
        """Opens the folder, or creates it.

        Args:
            folder: The folder.
            description: From `describe_run`.
            data: The training data.

        Raises:
            ValueError: The folder is in s3://.
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
        # An error while closing must not hide the error that is already being raised.
        with contextlib.suppress(Exception) if error else contextlib.nullcontext():
            self._manager.close()

    def start(self, state: TrainState) -> tuple[TrainState, Position]:
        """Starts a new run in the folder.

        Raises:
            CheckpointError: The folder already holds checkpoints.
        """
        if self._manager.all_steps():
            raise CheckpointError(
                f"{self.folder} already holds checkpoints: resume from them with checkpoint_dir="
                "train.CheckpointFolder(..., resume=True), or give another folder"
            )
        if is_first():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_manifest(self.folder / MANIFEST, self._data.manifest())
            self._write_description()
        return state, Position()

    def resume(self, state: TrainState) -> tuple[TrainState, Position]:
        """Loads the newest readable checkpoint, or starts from the beginning if there is none.

        A checkpoint that cannot be read is renamed, with a warning, and the one before is tried.

        Args:
            state: A state of the same structure and shardings; it is not donated.

        Raises:
            CheckpointError: The checkpoints belong to another run, or none of them can be read.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        if not steps:
            return self.start(state)
        settings = self._check_same_run()
        for step in steps:
            loaded, failure = None, ""
            try:
                loaded = self.load(step, state)
            except CheckpointError as error:
                failure = str(error)
            # All processes have to resume from the same checkpoint, so one failure rejects it for all.
            if not is_anywhere(loaded is None):
                assert loaded is not None
                if is_first():
                    self._write_description()
                return with_new_rates(loaded[0], settings, state), loaded[1]
            self._set_aside(step, failure or "Another process could not read a checkpoint")
        raise CheckpointError(f"None of the {len(steps)} checkpoints in {self.folder} can be read")

    def save(self, state: TrainState, position: Position, best_step: int | None) -> None:
        """Writes a checkpoint in the background, after waiting for the previous one.

        Args:
            state: The state.
            position: Progress of the run at this state.
            best_step: Step of the best checkpoint so far, which is kept.

        Raises:
            CheckpointError: This checkpoint or the previous one could not be written.
        """
        arguments = self._orbax.args
        # Copies: the next step donates these arrays while they are still being written.
        variables, training = jax.tree.map(jax.numpy.copy, to_stored(state))
        record = {"position": position.to_json(), "run": self._description}
        record = sealed(record, {"variables": variables, "training": training})
        self._preservation.best_step = best_step
        try:
            self._manager.wait_until_finished()
            if position.step in self._manager.all_steps():  # by checkpoint_every, at the last step of the epoch
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
        """Waits until all checkpoints are written and returns the newest; None if there is none.

        Raises:
            CheckpointError: The last checkpoint could not be written.
        """
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._unwritten(error) from error
        return self._newest_on_disk()

    def load(self, step: int, state: TrainState) -> tuple[TrainState, Position]:
        """Loads the checkpoint of a step.

        Args:
            step: The step.
            state: A state of the same structure and shardings; it is not donated.

        Raises:
            CheckpointError: The checkpoint cannot be read, or differs from what was saved.
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
        except Exception as error:  # Orbax and its storage backends raise many types
            raise CheckpointError(
                f"The checkpoint {self.folder / str(step)} cannot be read ({type(error).__name__}: {error})"
            ) from error

    def newest(self) -> Path | None:
        """Returns the newest checkpoint on disk after all writes have ended or failed; None if there is none."""
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
        is_anywhere(False)  # a barrier: the others wait until it is renamed
        self._manager.reload()

    def _newest_on_disk(self) -> Path | None:
        step = self._manager.latest_step()
        return None if step is None else self.folder / str(step)

    def _write_description(self) -> None:
        with replacing(self.folder / DESCRIPTION) as stream:
            json.dump(self._description, stream, indent=1)

    def _check_same_run(self) -> dict[str, Any]:
        """Compares the run with the saved one. Returns the saved settings, after a warning of those that changed."""
        try:
            saved = json.loads((self.folder / DESCRIPTION).read_text())
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{self.folder} has no readable {DESCRIPTION}: {error}") from error
        settings: dict[str, Any] = saved.get(SETTINGS, {})  # not in checkpoints of version 0.1
        lines = run_differences(saved, self._description, self._data_differences)
        if lines or self._description | {SETTINGS: None} != saved | {SETTINGS: None}:
            raise CheckpointError(
                "\n  ".join(
                    [f"{self.folder} holds another run, which cannot be resumed with these arguments:", *lines]
                ),
                lines,
            )
        changed = settings_differences(settings, self._description[SETTINGS])
        if changed:
            heading = f"{self.folder} is resumed with other settings, which hold from here on:"
            warnings.warn("\n  ".join([heading, *changed]), stacklevel=6)
        return settings

    def _data_differences(self) -> list[str]:
        """Lists the differences between the saved and the current manifest; empty if the saved one is unreadable."""
        with contextlib.suppress(OSError, ValueError):
            return difference(read_manifest(self.folder / MANIFEST), self._data.manifest())
        return []


@dataclass
class _LastAndBest:
    """Orbax preservation policy that keeps the last checkpoints and the best.

    Orbax's own policy for the best reads a file of every checkpoint, also of incomplete ones.
    """

    best_step: int | None = None

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        last = [info.step for info in checkpoints][-KEPT:]
        return [info.step in last or info.step == self.best_step for info in checkpoints]
