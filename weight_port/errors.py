"""What goes wrong with weights, told completely."""

from collections.abc import Iterable


class WeightError(ValueError):
    """Weights that do not fit, or cannot be had.

    Attributes:
        missing: What was wanted and is not there, a line each, such as `block1_conv1/kernel (3, 3, 3, 64)`.
        unexpected: What is there and nothing asked for.
        misshapen: What is there in another shape.
    """

    def __init__(
        self,
        message: str,
        missing: Iterable[str] = (),
        unexpected: Iterable[str] = (),
        misshapen: Iterable[str] = (),
    ):
        self.message = message
        self.missing = tuple(missing)
        self.unexpected = tuple(unexpected)
        self.misshapen = tuple(misshapen)
        # Pickle and copy call the class again with `args`.
        super().__init__(message, self.missing, self.unexpected, self.misshapen)

    def __str__(self) -> str:
        lines = [self.message]
        for heading in ("missing", "unexpected", "misshapen"):
            entries: tuple[str, ...] = getattr(self, heading)
            if entries:
                lines += [f"{heading} ({len(entries)}):", *(f"  {entry}" for entry in entries)]
        return "\n".join(lines)


class DownloadError(WeightError):
    """A weight file that could not be fetched, or came with the wrong bytes."""
