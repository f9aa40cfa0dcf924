"""Exceptions; every mismatch is listed."""

from collections.abc import Iterable


class WeightError(ValueError):
    """Weights are invalid, do not fit, or cannot be loaded.

    Attributes:
        missing: Arrays that are needed but absent, one line each, such as `block1_conv1/kernel (3, 3, 3, 64)`.
        unexpected: Arrays that are present but not needed.
        misshapen: Arrays with a wrong shape or dtype.
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
        # pickle and copy call the class with `args`.
        super().__init__(message, self.missing, self.unexpected, self.misshapen)

    def __str__(self) -> str:
        lines = [self.message]
        for heading in ("missing", "unexpected", "misshapen"):
            entries: tuple[str, ...] = getattr(self, heading)
            if entries:
                lines += [f"{heading} ({len(entries)}):", *(f"  {entry}" for entry in entries)]
        return "\n".join(lines)


class DownloadError(WeightError):
    """A weight file could not be downloaded, or its bytes are wrong."""
