"""Predictions of many photos in parts, each a file that is there as a whole or not at all.

The folder is all that processes share: whoever is started on it, one or many, after whatever end of others, makes the
parts that are not there. Nothing is locked. Where two make the same part, one file replaces the other.
"""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flaxapps.manifests import difference, read_manifest, write_manifest
from flaxapps.paths import in_bucket
from flaxapps.predicted_files import PredictedFile
from flaxapps.prediction import Outcome, readable
from flaxapps.reports import describe_error, replacing

MANIFEST_FILE = "manifest.json.gz"
PARTS_WANTED = 256  # as many processes can share the work
LEAST_PHOTOS, MOST_PHOTOS = 32, 1024  # in a part; the most is also what a killed process loses


def part_size(count: int) -> int:
    """Photos in a part, when nothing else is asked for; it depends on nothing but their number.

    >>> part_size(500), part_size(50_000), part_size(1_281_167)
    (32, 224, 1024)
    """
    size = -(-count // PARTS_WANTED)
    return min(max(-(-size // LEAST_PHOTOS) * LEAST_PHOTOS, LEAST_PHOTOS), MOST_PHOTOS)


@dataclass(frozen=True)
class Parts:
    """A folder of predictions in the making.

    Attributes:
        folder: It holds the manifest, `parts/`, and at the end `predictions` in one file.
        file: The format of the files.
        photos: All photos, each once.
        size: How many are in a part; the last may have fewer.
    """

    folder: Path
    file: PredictedFile
    photos: Sequence[Path]
    size: int

    @property
    def count(self) -> int:
        """How many parts there are."""
        return -(-len(self.photos) // self.size)

    @property
    def joined(self) -> Path:
        """The file of all predictions."""
        return self.folder / f"predictions.{self.file.form}"

    @property
    def unreadable(self) -> Path:
        """The file of the photos that could not be read, where there are any."""
        return self.folder / "unreadable.csv"

    def path(self, number: int) -> Path:
        """The file of a part."""
        return self.folder / "parts" / f"{number:05}-of-{self.count:05}.{self.file.form}"

    def photos_of(self, number: int) -> Sequence[Path]:
        """The photos of a part."""
        return self.photos[number * self.size : (number + 1) * self.size]

    def missing(self) -> list[int]:
        """The parts that are not there."""
        parts = self.folder / "parts"
        there = {path.name for path in parts.iterdir()} if parts.exists() else set()  # buckets have no empty folders
        return [number for number in range(self.count) if self.path(number).name not in there]

    def work(self, process: int, processes: int) -> Iterator[int]:
        """The parts one process should make: its own, and after them what others have not made yet.

        A part is looked for when its turn comes. Those of others are taken from the end, where they have not been yet;
        of processes that are gone, everything is.

        Args:
            process: Number of this process, from 0.
            processes: How many share the work.
        """
        own = range(process, self.count, processes)
        missing = set(self.missing())
        for number in own:
            if number in missing and not self.path(number).exists():
                yield number
        left = [number for number in reversed(self.missing()) if number % processes != process]
        turn = len(left) * process // processes  # several that are done early do not take the same
        for number in left[turn:] + left[:turn]:
            if not self.path(number).exists():
                yield number

    def write(self, number: int, outcomes: Sequence[Outcome]) -> None:
        """Writes a part, which is there with everything when it is there.

        Args:
            number: Of the part.
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
        """Writes all parts as one file, and a list of the photos that could not be read.

        Returns:
            How many those are.

        Raises:
            ValueError: A part does not hold its photos; it says which, and what to do.
            OSError: A file cannot be read or written.
        """
        failures = []
        for number in range(self.count):
            failed = self._read_failures(number)
            names = {name for name, _ in failed}
            wanted = [str(path) for path in self.photos_of(number) if str(path) not in names]
            if self.file.files_in(self.path(number)) != wanted:
                raise ValueError(f"{self.path(number)} does not hold its photos: delete it, and start again")
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
        """How many photos could not be read, of the parts that are there."""
        return sum(len(self._read_failures(number)) for number in range(self.count))

    def _failures(self, number: int) -> Path:
        return self.path(number).with_suffix(".unreadable.json")

    def _read_failures(self, number: int) -> list[tuple[str, str]]:
        path = self._failures(number)
        return [(name, error) for name, error in json.loads(path.read_text())] if path.exists() else []


def open_parts(folder: Path, file: PredictedFile, photos: Sequence[Path], size: int, facts: Mapping[str, str]) -> Parts:
    """Begins predictions in a folder, or goes on with those that are there.

    Args:
        folder: It is made if it is not there.
        file: The format of the files.
        photos: The photos; one that is named twice is predicted once.
        size: How many are in a part.
        facts: What else two runs must agree on to go on with each other's parts.

    Raises:
        ValueError: The folder holds predictions of another model, of other photos or with other options; all that
            differs is told. Or it holds something else.
        OSError: The folder cannot be made, or a photo is not there.
    """
    photos = list(dict.fromkeys(photos))
    manifest = {**facts, "photos in a part": str(size)}
    manifest |= {f"file {path}": _size(path) for path in photos}
    (folder / "parts").mkdir(parents=True, exist_ok=True)
    path = folder / MANIFEST_FILE
    if not path.exists():
        write_manifest(path, manifest)
    if differences := difference(read_manifest(path), manifest):
        raise ValueError(
            f"{folder} holds predictions that are not of this run ({'; '.join(differences)}): "
            "give another --output-folder, or delete this one"
        )
    return Parts(folder, file, photos, size)


def _size(path: Path) -> str:
    if in_bucket(path):
        return "in a bucket"  # each would be a request
    return f"{path.stat().st_size} bytes" if path.exists() else "unreadable"
