"""The weight files Keras has published for its 2017 networks: where they are and how to tell that they are whole."""

from collections.abc import Mapping
from dataclasses import dataclass

from weight_port.errors import WeightError


@dataclass(frozen=True)
class PublishedFile:
    """One published weight file.

    Attributes:
        network: Such as "xception".
        variant: "" for today's file, "keras2" for the ResNet50 of 2016.
        include_top: Whether the classifier's weights are in it.
        filename: The name Keras gives it in its cache.
        url: Where it is published.
        md5: Hexadecimal, as Keras checks it.
        size: In bytes.
        licence: Of the weights.
        sha256: Hexadecimal; None until somebody here has seen the bytes.
    """

    network: str
    variant: str
    include_top: bool
    filename: str
    url: str
    md5: str
    size: int
    licence: str
    sha256: str | None = None

    @property
    def alternative_name(self) -> str:
        """A file name that no other content shares: both ResNet50 files are published under one name."""
        return f"{self.filename.removesuffix('.h5')}-{self.md5[:8]}.h5"

    @property
    def hashes(self) -> Mapping[str, str]:
        """Every known hash of the content, by the algorithm's name in hashlib."""
        return {"md5": self.md5} | ({"sha256": self.sha256} if self.sha256 else {})


_KERAS = "https://storage.googleapis.com/tensorflow/keras-applications"
_CHOLLET = "https://github.com/fchollet/deep-learning-models/releases/download"

# Network, variant, folder, licence; then MD5 and bytes with the classifier, MD5 and bytes without.
# fmt: off
_TABLE = (
    ("xception", "", f"{_KERAS}/xception", "MIT",
     "0a58e3b7378bc2990ea3b43d5981f1f6", 91884032, "b0042744bf5b25fce3cb969f33bebb97", 83683744),
    ("vgg16", "", f"{_KERAS}/vgg16", "CC BY 4.0 (Oxford VGG)",
     "64373286793e3c8b2b4e3219cbf3544b", 553467096, "6d6bbae143d832006294945121d1f1fc", 58889256),
    ("vgg19", "", f"{_KERAS}/vgg19", "CC BY 4.0 (Oxford VGG)",
     "cbe5617147190e668d6c5d5026f83318", 574710816, "253f8cb515780f3b799900260a226db6", 80134624),
    ("resnet50", "", f"{_KERAS}/resnet", "MIT (Kaiming He)",
     "2cb95161c43110f7111970584f804107", 102967424, "4d473c1dd8becc155b73f8504c6f6626", 94765736),
    ("resnet50", "keras2", f"{_CHOLLET}/v0.2", "MIT (Kaiming He)",
     "a7b3fe01876f51b976af0dea6bc144eb", 102853048, "a268eb855778b3df3c7506639542a6af", 94653016),
    ("inception_v3", "", f"{_KERAS}/inception_v3", "Apache-2.0",
     "9a0d58056eeedaa3f26cb7ebd46da564", 96112376, "bcbd6486424b2319ff4ef7d526e38f63", 87910968),
)
# fmt: on


def _entry(
    network: str, variant: str, include_top: bool, folder: str, md5: str, size: int, licence: str
) -> PublishedFile:
    filename = f"{network}_weights_tf_dim_ordering_tf_kernels{'' if include_top else '_notop'}.h5"
    return PublishedFile(network, variant, include_top, filename, f"{folder}/{filename}", md5, size, licence)


PUBLISHED_FILES: tuple[PublishedFile, ...] = tuple(
    _entry(network, variant, include_top, folder, md5, size, licence)
    for network, variant, folder, licence, top_md5, top_size, notop_md5, notop_size in _TABLE
    for include_top, md5, size in ((True, top_md5, top_size), (False, notop_md5, notop_size))
)
"""All of them: two for each network and variant."""


def published_file(network: str, include_top: bool = True, variant: str = "") -> PublishedFile:
    """Look a published file up.

    >>> published_file("xception", include_top=False).filename
    'xception_weights_tf_dim_ordering_tf_kernels_notop.h5'

    Raises:
        WeightError: For a network or a variant that has none; the known ones are named.
    """
    for file in PUBLISHED_FILES:
        if (file.network, file.include_top, file.variant) == (network, include_top, variant):
            return file
    known = sorted({f"{file.network!r}, variant={file.variant!r}" for file in PUBLISHED_FILES})
    raise WeightError(f"No weight file is published for {network!r}, variant={variant!r}. Known: {'; '.join(known)}.")
