"""Photos that a training would leave out: counted and named before it starts."""

from rich.console import Console

from flaxapps.cli.finetune.plan import Plan
from flaxapps.runtime.console import listed
from flaxapps.runtime.files import in_bucket, path_in
from flaxapps.runtime.image_files import ImageError, check_header
from flaxapps.train.data.image_files import ImageDataset, in_threads

MOST_CHECKED = 100_000  # photos; beyond, the first epoch names those that it left out
NAMED = 3  # in a message


def tell_unreadable(console: Console, plan: Plan) -> None:
    """Names the photos that are not images, by the beginning of their files.

    A photo that is damaged further on is found, and named, in the first epoch. Files in buckets are not opened twice.

    Raises:
        ValueError: The photos of a class, or more than half of all, are not images.
    """
    for title, data in (("training", plan.data), ("validation", plan.validation)):
        if data is None or in_bucket(data.root) or len(data) > MOST_CHECKED:
            continue
        failures = _failures(data)
        if not failures:
            continue
        examples = listed(list(failures.values()), "; ", NAMED)
        if 2 * len(failures) > len(data):
            raise ValueError(f"{len(failures)} of {len(data)} {title} photos cannot be read: {examples}")
        readable = {label for index, label in enumerate(data.labels.tolist()) if index not in failures}
        lost = sorted(set(data.labels.tolist()) - readable)
        if lost:
            names = ", ".join(data.class_names[label] for label in lost)
            raise ValueError(f"No {title} photo of {names} can be read: {examples}")
        console.print(f"{len(failures)} of {len(data)} {title} photos cannot be read and are left out: {examples}")


def _failures(data: ImageDataset) -> dict[int, str]:
    """Returns why a photo cannot be opened, by its index."""

    def check(index: int) -> str | None:
        try:
            check_header(path_in(data.root, data.files[index]))
        except (ImageError, OSError) as error:
            return str(error)
        return None

    return {index: reason for index, reason in enumerate(in_threads(check, len(data))) if reason}
