"""Sharded prediction.

Every shard is written atomically. Workers coordinate only through the output folder: each computes the shards that are
missing, also after others were killed. There is no locking; if two workers compute the same shard, the last one wins.
"""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flaxapps.cli.predict.files import PredictedFile
from flaxapps.cli.predict.stream import Outcome, readable
from flaxapps.runtime.console import describe_error
from flaxapps.runtime.files import in_bucket, replacing
from flaxapps.runtime.manifests import difference, read_manifest, write_manifest

MANIFEST_FILE = "manifest.json.gz"
SHARDS_WANTED = 256  # upper bound of the processes that can share the work
LEAST_PHOTOS, MOST_PHOTOS = 32, 1024  # in a shard; a killed process loses one shard at most


def shard_size(count: int) -> int:
    """Returns the default number of photos in a shard. All processes get the same, as it depends on `count` only.

    >>> shard_size(500), shard_size(50_000), shard_size(1_281_167)
    (32, 224, 1024)
    """
    size = -(-count // SHARDS_WANTED)
    return min(max(-(-size // LEAST_PHOTOS) * LEAST_PHOTOS, LEAST_PHOTOS), MOST_PHOTOS)


@dataclass(frozen=True)
class Shards:
    """A folder of sharded predictions.

    Attributes:
        folder: Holds the manifest, `shards/`, and at the end all predictions in one file.
        file: The format of the files.
        photos: All photos, without repetitions.
        size: Number of photos in a shard; the last may have fewer.
    """

    folder: Path
    file: PredictedFile
    photos: Sequence[Path]
    size: int

    @property
    def count(self) -> int:
        """Number of shards."""
        return -(-len(self.photos) // self.size)

    @property
    def joined(self) -> Path:
        """The file of all predictions."""
        return self.folder / f"predictions.{self.file.form}"

    @property
    def unreadable(self) -> Path:
        """The list of the photos that could not be read; written only if there are any."""
        return self.folder / "unreadable.csv"

    def path(self, number: int) -> Path:
        """Returns the file of a shard."""
        return self.folder / "shards" / f"{number:05}-of-{self.count:05}.{self.file.form}"

    def photos_of(self, number: int) -> Sequence[Path]:
        """Returns the photos of a shard."""
        return self.photos[number * self.size : (number + 1) * self.size]

    def missing(self) -> list[int]:
        """Returns the numbers of the shards that are not written yet."""
        shards = self.folder / "shards"
        there = {path.name for path in shards.iterdir()} if shards.exists() else set()  # buckets have no empty folders
        return [number for number in range(self.count) if self.path(number).name not in there]

    def work(self, process: int, processes: int) -> Iterator[int]:
        """Yields the shards one process should compute: first its own, then those that others have not written.

        Each shard is checked again just before it is yielded. Shards of others are taken from the end, which they
        reach last. In this way the shards of killed processes are computed too.

        Args:
            process: Index of this process, from 0.
            processes: Number of processes.
        """
        own = range(process, self.count, processes)
        missing = set(self.missing())
        for number in own:
            if number in missing and not self.path(number).exists():
                yield number
        left = [number for number in reversed(self.missing()) if number % processes != process]
        turn = len(left) * process // processes  # processes that finish early start at different shards
        for number in left[turn:] + left[:turn]:
            if not self.path(number).exists():
                yield number

    def write(self, number: int, outcomes: Sequence[Outcome]) -> None:
        """Writes a shard atomically. Its list of unreadable photos comes first, so that no shard lacks it.

        Args:
            number: Number of the shard.
            outcomes: One for each of its photos, in order.

        Raises:
            OSError: The files cannot be written.
        """
        failed = [(str(path), describe_error(error)) for path, error in outcomes if isinstance(error, Exception)]
        beside = self._failures(number)
        if failed:
            with replacing(beside) as stream:
                json.dump(failed, stream)
        else:
            beside.unlink(missing_ok=True)
        with replacing(self.path(number), "wb" if self.file.is_binary else "w") as stream:
            self.file.write(stream, *readable(outcomes))

    def join(self) -> int:
        """Joins all shards to one file, and lists the photos that could not be read.

        Returns:
            The number of unreadable photos.

        Raises:
            ValueError: A shard is damaged, or does not hold its photos.
            OSError: A file cannot be read or written.
        """
        failures = []
        for number in range(self.count):
            failed = self._read_failures(number)
            names = {name for name, _ in failed}
            wanted = [str(path) for path in self.photos_of(number) if str(path) not in names]
            if self.file.files_in(self.path(number)) != wanted:
                raise ValueError(f"{self.path(number)} does not hold its photos: delete it, and run the command again")
            failures += failed
        if failures:
            with replacing(self.unreadable) as stream:
                csv.writer(stream, lineterminator="\n").writerows([("file", "error"), *failures])
        else:
            self.unreadable.unlink(missing_ok=True)
        with replacing(self.joined, "wb" if self.file.is_binary else "w") as stream:
            self.file.join(stream, [self.path(number) for number in range(self.count)])
        return len(failures)

    def count_unreadable(self) -> int:
        """Returns the number of unreadable photos in the shards written so far."""
        return sum(len(self._read_failures(number)) for number in range(self.count))

    def _failures(self, number: int) -> Path:
        return self.path(number).with_suffix(".unreadable.json")

    def _read_failures(self, number: int) -> list[tuple[str, str]]:
        path = self._failures(number)
        return [(name, error) for name, error in json.loads(path.read_text())] if path.exists() else []


def open_shards(
    folder: Path, file: PredictedFile, photos: Sequence[Path], size: int, facts: Mapping[str, str]
) -> Shards:
    """Starts or resumes sharded predictions in a folder.

    Args:
        folder: The output folder; created if missing.
        file: The format of the files.
        photos: The photos; repeated ones are predicted once.
        size: Number of photos in a shard.
        facts: Other settings that a resumed run must share with the shards, by name.

    Raises:
        ValueError: The folder holds predictions of another model, of other photos or with other options (the message
            lists the differences), or its manifest is damaged.
        OSError: The folder cannot be created, or a file cannot be read or written.
    """
    photos = list(dict.fromkeys(photos))
    manifest = {**facts, "photos in a shard": str(size)}
    manifest |= {f"file {path}": _size(path) for path in photos}
    (folder / "shards").mkdir(parents=True, exist_ok=True)
    path = folder / MANIFEST_FILE
    if not path.exists():
        write_manifest(path, manifest)
    if differences := difference(read_manifest(path), manifest):
        raise ValueError(
            f"{folder} holds predictions of another run ({'; '.join(differences)}): "
            "give another --output-folder, or delete this one"
        )
    return Shards(folder, file, photos, size)


def _size(path: Path) -> str:
    if in_bucket(path):
        return "in a bucket"  # a size would take one request per photo
    return f"{path.stat().st_size} bytes" if path.exists() else "unreadable"
