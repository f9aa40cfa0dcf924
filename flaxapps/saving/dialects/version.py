"""Detect the version of Keras that wrote a model."""

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Version:
    """The version of Keras that wrote a configuration.

    Attributes:
        numbers: Major, minor and patch number: (2, 2, 4). (1, 0, 0) if the file has none, as Keras 1 did not write it.
        tensorflow: Whether it is the Keras inside TensorFlow (tf.keras), which was a separate code base.
        backend: Such as "tensorflow", "theano" or "jax"; "" if the file does not record it.
        known: Whether the file records the version.
    """

    numbers: tuple[int, int, int] = (1, 0, 0)
    tensorflow: bool = False
    backend: str = ""
    known: bool = True

    @property
    def major(self) -> int:
        """1, 2 or 3."""
        return self.numbers[0]

    def __str__(self) -> str:
        if not self.known:
            return "an unknown version of Keras"
        return f"{'tf.keras' if self.tensorflow else 'Keras'} {'.'.join(map(str, self.numbers))}"


def warn_if_unknown(version: Version, name: str | None, kind: str, assumed: str) -> None:
    """Warn that a layer means different things in different versions, and the file does not say which wrote it.

    Args:
        version: What the file says; a known version gives no warning.
        name: The layer's name.
        kind: Its class.
        assumed: What the layer is read as, for the end of the sentence "it is read as ...".

    Warns:
        UserWarning: The version is unknown.
    """
    if not version.known:
        warnings.warn(
            f"Layer {name!r} of kind {kind} is read as {assumed}: it means different things in different versions of "
            'Keras, and the file does not say which one wrote it ("keras_version")',
            stacklevel=2,
        )


def read_version(config: Mapping[str, Any]) -> Version:
    """Read the version from a configuration returned by `weight_port.read_config`.

    Trap: tf.keras of TensorFlow 1.13 to 2.1 always writes "2.2.4-tf". From 2.5 on tf.keras is the package keras, with
    version numbers above those of multi-backend Keras (up to 2.3.1).

    >>> str(read_version({"keras_version": "2.2.4-tf"})), read_version({"keras_version": "3.15.1"}).major
    ('tf.keras 2.2.4', 3)
    """
    text, backend = config.get("keras_version"), config.get("backend")
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", text) if isinstance(text, str) else None
    backend = backend if isinstance(backend, str) else ""
    if found is None:
        return Version((3, 0, 0) if "module" in config else (1, 0, 0), backend=backend, known=False)
    major, minor, patch = (int(part or 0) for part in found.groups())
    tensorflow = major == 2 and (minor > 3 or str(text).endswith("-tf"))
    return Version((major, minor, patch), tensorflow, backend)
