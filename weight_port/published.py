"""Weight files published by Keras: URLs, hashes, sizes and licences."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from weight_port.errors import WeightError


@dataclass(frozen=True)
class PublishedFile:
    """One published weight file.

    Attributes:
        network: Such as "xception".
        variant: "" for the current file, "keras2" for the ResNet50 of 2016; of networks that are published in several
            widths or for several image sizes, alpha and size, such as "0.75_160".
        include_top: Whether it includes the classifier's weights.
        filename: File name in Keras's cache.
        url: Download URL.
        md5: Hexadecimal MD5, which Keras checks too; None if it publishes none.
        size: Size in bytes; None if unknown.
        licence: Licence of the weights.
        sha256: Hexadecimal SHA-256; None if unknown.
    """

    network: str
    variant: str
    include_top: bool
    filename: str
    url: str
    md5: str | None
    size: int | None
    licence: str
    sha256: str | None = None

    @property
    def alternative_name(self) -> str:
        """A file name that is unique to the content: both ResNet50 files are published under one name."""
        mark = next((value[:8] for value in self.hashes.values()), "unverified")
        return f"{self.filename.removesuffix('.h5')}-{mark}.h5"

    @property
    def published_hash(self) -> str:
        """The hash that Keras checks, with its name: "MD5 0a58...", or "SHA-256 8ae6..."."""
        if self.md5 or self.sha256:
            return f"MD5 {self.md5}" if self.md5 else f"SHA-256 {self.sha256}"
        return "MD5 unpublished"

    @property
    def superseded(self) -> bool:
        """Whether a newer file is published under the same name."""
        return self.variant == "keras2"

    @property
    def hashes(self) -> Mapping[str, str]:
        """The known hashes of the content, by algorithm name in hashlib; empty if none is published."""
        return {name: value for name, value in (("md5", self.md5), ("sha256", self.sha256)) if value}


_KERAS = "https://storage.googleapis.com/tensorflow/keras-applications"
_KERAS_ROOT = "https://storage.googleapis.com/keras-applications"
_CHOLLET = "https://github.com/fchollet/deep-learning-models/releases/download"


class _Pair(NamedTuple):
    """The two files of one variant of a network.

    Attributes:
        network: As in `PublishedFile`.
        variant: As in `PublishedFile`.
        top: Hash of the file with the classifier: 32 digits of an MD5, 64 of a SHA-256; None if Keras publishes none.
        notop: Hash of the file without.
        top_size: Bytes of the file with the classifier, if known.
        notop_size: Bytes of the file without.
        stem: Name of the file with the classifier, without .h5, if it is not that of its family.
        address: The same in the URL, if it differs.
    """

    network: str
    variant: str
    top: str | None = None
    notop: str | None = None
    top_size: int | None = None
    notop_size: int | None = None
    stem: str | None = None
    address: str | None = None


class _Family(NamedTuple):
    """Files in one folder.

    Attributes:
        folder: URL of the folder.
        licence: Licence of the weights.
        pairs: The files; the default of a network comes first.
        stem: Name of a file with the classifier, without .h5.
        ending: What follows in the name of a file without the classifier.
    """

    folder: str
    licence: str
    pairs: tuple[_Pair, ...]
    stem: str = "{network}_weights_tf_dim_ordering_tf_kernels"
    ending: str = "_notop"


# Hashes and bytes with the classifier, and without.
# fmt: off
_FAMILIES = (
    _Family(f"{_KERAS}/xception", "MIT", (
        _Pair("xception", "", "0a58e3b7378bc2990ea3b43d5981f1f6",
              "b0042744bf5b25fce3cb969f33bebb97", 91884032, 83683744),
    )),
    _Family(f"{_KERAS}/vgg16", "CC BY 4.0 (Oxford VGG)", (
        _Pair("vgg16", "", "64373286793e3c8b2b4e3219cbf3544b", "6d6bbae143d832006294945121d1f1fc", 553467096, 58889256),
    )),
    _Family(f"{_KERAS}/vgg19", "CC BY 4.0 (Oxford VGG)", (
        _Pair("vgg19", "", "cbe5617147190e668d6c5d5026f83318", "253f8cb515780f3b799900260a226db6", 574710816, 80134624),
    )),
    _Family(f"{_KERAS}/resnet", "MIT (Kaiming He)", (
        _Pair("resnet50", "", "2cb95161c43110f7111970584f804107",
              "4d473c1dd8becc155b73f8504c6f6626", 102967424, 94765736),
        _Pair("resnet101", "", "f1aeb4b969a6efcfb50fad2f0c20cfc5", "88cf7a10940856eca736dc7b7e228a21"),
        _Pair("resnet152", "", "100835be76be38e30d865e96f2aaae62", "ee4c566cf9a93f14d82f913c2dc6dd0c"),
    )),
    _Family(f"{_CHOLLET}/v0.2", "MIT (Kaiming He)", (
        _Pair("resnet50", "keras2", "a7b3fe01876f51b976af0dea6bc144eb",
              "a268eb855778b3df3c7506639542a6af", 102853048, 94653016),
    )),
    _Family(f"{_KERAS}/resnet", "BSD (Facebook)", (
        _Pair("resnet50v2", "", "3ef43a0b657b3be2300d5770ece849e0", "fac2f116257151a9d068a22e544a4917"),
        _Pair("resnet101v2", "", "6343647c601c52e1368623803854d971", "c0ed64b8031c3730f411d2eb4eea35b5"),
        _Pair("resnet152v2", "", "a49b44d1979771252814e80f8ec446f9", "ed17cf2e0169df9d443503ef94b23b33"),
    )),
    _Family(f"{_KERAS}/inception_v3", "Apache-2.0", (
        _Pair("inception_v3", "", "9a0d58056eeedaa3f26cb7ebd46da564",
              "bcbd6486424b2319ff4ef7d526e38f63", 96112376, 87910968),
    )),
    _Family(f"{_KERAS}/inception_resnet_v2", "Apache-2.0", (
        _Pair("inception_resnet_v2", "", "e693bd0210a403b3192acc6073ad2e96", "d19885ff4a710c122648d3b5c3b684e4"),
    )),
    _Family(f"{_KERAS}/densenet", "BSD 3-clause (Zhuang Liu)", (
        _Pair("densenet121", "", "9d60b8095a5708f2dcce2bca79d332c7", "30ee3e1110167f948a6b9946edeeb738"),
        _Pair("densenet169", "", "d699b8f76981ab1b30698df4c175e90b", "b8c4d4c20dd625c148057b9ff1c1176b"),
        _Pair("densenet201", "", "1ceb130c1ea1b78c3bf6114dbdfd8807", "c13680b51ded0fb44dff2d8f86ac8bb1"),
    )),
    _Family(f"{_KERAS}/mobilenet", "Apache-2.0", (
        *(
            _Pair("mobilenet", f"{alpha}_{rows}", stem=f"mobilenet_{width}_{rows}_tf")
            for alpha, width in ((1.0, "1_0"), (0.75, "7_5"), (0.5, "5_0"), (0.25, "2_5"))
            for rows in (224, 192, 160, 128)
        ),
    ), ending="_no_top"),
    _Family(f"{_KERAS}/mobilenet_v2", "Apache-2.0", (
        *(
            _Pair("mobilenet_v2", f"{alpha}_{rows}") for alpha in (1.0, 1.4, 1.3, 0.75, 0.5, 0.35)
            for rows in (224, 192, 160, 128, 96)
        ),
    ), stem="{network}_weights_tf_dim_ordering_tf_kernels_{variant}", ending="_no_top"),
    _Family(f"{_KERAS}/mobilenet_v3", "Apache-2.0", (
        _Pair("mobilenet_v3_small", "1.0", "8768d4c2e7dee89b9d02b2d03d65d862", "d3e8ec802a04aa4fc771ee12a9a9b836",
              stem="weights_{network}_224_1.0_float"),
        _Pair("mobilenet_v3_small", "0.75", "cb65d4e5be93758266aa0a7f2c6708b7", "ebdb5cc8e0b497cd13a7c275d475c819",
              stem="weights_{network}_224_0.75_float"),
        _Pair("mobilenet_v3_small", "minimalistic_1.0", "99cd97fb2fcdad2bf028eb838de69e37",
              "cde8136e733e811080d9fcd8a252f7e4",
              stem="weights_{network}_minimalistic_224_1.0_float"),
        _Pair("mobilenet_v3_large", "1.0", "59e551e166be033d707958cf9e29a6a7", "07fb09a5933dd0c8eaafa16978110389",
              stem="weights_{network}_224_1.0_float"),
        _Pair("mobilenet_v3_large", "0.75", "765b44a33ad4005b3ac83185abf1d0eb", "40af19a13ebea4e2ee0c676887f69a2e",
              stem="weights_{network}_224_0.75_float"),
        _Pair("mobilenet_v3_large", "minimalistic_1.0", "675e7b876c45c57e9e63e6d90a36599c",
              "ec5221f64a2f6d1ef965a614bdae7973",
              stem="weights_{network}_minimalistic_224_1.0_float"),
    ), ending="_no_top_v2"),
    _Family(_KERAS_ROOT, "Apache-2.0", (
        _Pair("efficientnetb0", "", "902e53a9f72be733fc0bcb005b3ebbac", "50bc09e76180e00e4465e1a485ddc09d"),
        _Pair("efficientnetb1", "", "1d254153d4ab51201f1646940f018540", "74c4e6b3e1f6a1eea24c589628592432"),
        _Pair("efficientnetb2", "", "b15cce36ff4dcbd00b6dd88e7857a6ad", "111f8e2ac8aa800a7a99e3239f7bfb39"),
        _Pair("efficientnetb3", "", "ffd1fdc53d0ce67064dc6a9c7960ede0", "af6d107764bb5b1abb91932881670226"),
        _Pair("efficientnetb4", "", "18c95ad55216b8f92d7e70b3a046e2fc", "ebc24e6d6c33eaebbd558eafbeedf1ba"),
        _Pair("efficientnetb5", "", "ace28f2a6363774853a83a0b21b9421a", "38879255a25d3c92d5e44e04ae6cec6f"),
        _Pair("efficientnetb6", "", "165f6e37dce68623721b423839de8be5", "9ecce42647a20130c1f39a5d4cb75743"),
        _Pair("efficientnetb7", "", "8c03f828fec3ef71311cd463b6759d99", "cbcfe4450ddf6f3ad90b1b398090fe4a"),
    ), stem="{network}"),
    _Family(f"{_KERAS}/efficientnet_v2", "Apache-2.0", (
        _Pair("efficientnetv2-b0", "", "21ecbf6da12460d5c40bb2f29ceb2188", "893217f2bb855e2983157299931e43ff"),
        _Pair("efficientnetv2-b1", "", "069f0534ff22adf035c89e2d9547a9dc", "0e80663031ca32d657f9caa404b6ec37"),
        _Pair("efficientnetv2-b2", "", "424e49f28180edbde1e94797771950a7", "1dfe2e7a5d45b6632553a8961ea609eb"),
        _Pair("efficientnetv2-b3", "", "1f1fc43bd98a6e4fd8fdfd551e02c7a0", "f6abf7b5849ac99a89b50dd3fd532856"),
        _Pair("efficientnetv2-s", "", "e1d88a8495beba45748fedd0cecbe016", "af0682fb74e8c54910f2d4393339c070"),
        _Pair("efficientnetv2-m", "", "a3bf6aa3276309f4fc6a34aa114c95cd", "1b8dc055df72dde80d614482840fe342"),
        _Pair("efficientnetv2-l", "", "27e6d408b53c7ebc868fefa357689935", "b0b66b5c863aef5b46e8608fe1711615"),
    ), stem="{network}"),
    _Family(f"{_KERAS}/convnext", "MIT (Facebook)", (
        _Pair("convnext_tiny", "", "8ae6e78ce2933352b1ef4008e6dd2f17bc40771563877d156bc6426c7cf503ff",
              "d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1"),
        _Pair("convnext_small", "", "ce1277d8f1ee5a0ef0e171469089c18f5233860ceaf9b168049cb9263fd7483c",
              "6fc8009faa2f00c1c1dfce59feea9b0745eb260a7dd11bee65c8e20843da6eab"),
        _Pair("convnext_base", "", "52cbb006d3dadd03f6e095a8ca1aca47aecdd75acb4bc74bce1f5c695d0086e6",
              "40a20c5548a5e9202f69735ecc06c990e6b7c9d2de39f0361e27baeb24cb7c45"),
        _Pair("convnext_large", "", "070c5ed9ed289581e477741d3b34beffa920db8cf590899d6d2c67fba2a198a6",
              "96f02b6f0753d4f543261bc9d09bed650f24dd6bc02ddde3066135b63d23a1cd"),
        _Pair("convnext_xlarge", "", "c1f5ccab661354fc3a79a10fa99af82f0fbf10ec65cb894a3ae0815f17a889ee",
              "de3f8a54174130e0cecdc71583354753d557fcf1f4487331558e2a16ba0cfe05"),
    ), stem="{network}"),
    _Family(f"{_KERAS}/nasnet", "Apache-2.0", (
        _Pair("nasnet_mobile", "", "020fb642bf7360b370c678b08e0adf61",
              "1ed92395b5b598bdda52abe5c0dbfd63", address="NASNet-mobile"),
        _Pair("nasnet_large", "", "11577c9a518f0070763c2b964a382f17",
              "d81d89dc07e6e56530c4e77faddd61b5", address="NASNet-large"),
    ), stem="{network}", ending="_no_top"),
)
# fmt: on


def _file(family: _Family, pair: _Pair, include_top: bool) -> PublishedFile:
    stem = (pair.stem or family.stem).format(network=pair.network, variant=pair.variant)
    ending = "" if include_top else family.ending
    address = pair.address + ending.replace("_", "-") if pair.address else stem + ending
    value, size = (pair.top, pair.top_size) if include_top else (pair.notop, pair.notop_size)
    md5, sha256 = (None, value) if value and len(value) == 64 else (value, None)
    return PublishedFile(
        pair.network,
        pair.variant,
        include_top,
        f"{stem}{ending}.h5",
        f"{family.folder}/{address}.h5",
        md5,
        size,
        family.licence,
        sha256,
    )


PUBLISHED_FILES: tuple[PublishedFile, ...] = tuple(
    _file(family, pair, include_top) for family in _FAMILIES for pair in family.pairs for include_top in (True, False)
)
"""All published files: two for each network and variant."""


def published_file(network: str, include_top: bool = True, variant: str = "") -> PublishedFile:
    """Look up a published file; variant "" is the default, the first of a network.

    >>> published_file("xception", include_top=False).filename
    'xception_weights_tf_dim_ordering_tf_kernels_notop.h5'
    >>> published_file("mobilenet").filename
    'mobilenet_1_0_224_tf.h5'

    Raises:
        WeightError: The network or variant has no published file; known ones are listed.
    """
    for file in PUBLISHED_FILES:
        if (file.network, file.include_top) == (network, include_top) and variant in ("", file.variant):
            return file
    known = sorted({f"{file.network!r}, variant={file.variant!r}" for file in PUBLISHED_FILES})
    of_network = [name for name in known if name.startswith(f"{network!r},")]
    raise WeightError(
        f"No weight file is published for {network!r}, variant={variant!r}. Known: {'; '.join(of_network or known)}."
    )


def cache_folder() -> Path:
    """Return the folder where Keras caches weight files: `$KERAS_HOME/models`, or `~/.keras/models`."""
    return keras_home() / "models"


def keras_home() -> Path:
    """Return the folder of Keras's settings and weights: `$KERAS_HOME`, or `~/.keras` if that is unset or empty."""
    return Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser()
