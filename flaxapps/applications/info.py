"""Facts about a network: sizes, preprocessing, published accuracy and weight files."""

from dataclasses import dataclass

from weight_port.published import PUBLISHED_FILES, PublishedFile


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """Facts about one network.

    Attributes:
        name: Name of the network on the command line, of the model and of its weight files.
        function: Name of the function that builds it.
        module: Module of that function.
        default_size: Default height and width of its images, in pixels.
        min_size: Smallest documented height and width, in pixels.
        possible_size: Smallest height and width the layers allow, in pixels; the lowest sensible `min_size=`.
        preprocessing: Mode of `preprocess_input`: "caffe", "tf", "torch" or "none".
        parameters: Number of parameters with the classifier.
        depth: Number of layers as published by Keras; None if it publishes none.
        top1: Published top-1 accuracy on the ILSVRC2012 validation set, in percent; None if not published.
        top5: The same for top-5.
        reference: Address of the paper.
        keras_name: Name of the model, as in Keras, with {alpha} and {rows} where it depends on the width and the image
            size; None if it is `name`.
        channels_first: Whether the network takes channels_first images.
        free_size: Whether one model without the classifier takes images of any size.
        published_sizes: Sizes of square images that weights are published for, if there are several.
        any_size: Whether one model with the classifier takes images of any size, and does by default.
        preprocessing_inside: For preprocessing "none": the mode of the layer that `include_preprocessing=False` leaves
            out; None if it is no mode of `preprocess_input`.
    """

    name: str
    function: str
    module: str
    default_size: int
    min_size: int
    possible_size: int
    preprocessing: str
    parameters: int
    reference: str
    depth: int | None = None
    top1: float | None = None
    top5: float | None = None
    keras_name: str | None = None
    channels_first: bool = True
    free_size: bool = True
    published_sizes: tuple[int, ...] = ()
    any_size: bool = False
    preprocessing_inside: str | None = None

    @property
    def family(self) -> str:
        """Name of the family: the last part of the module, such as "resnet_v2"."""
        return {"vgg19": "vgg16"}.get(name := self.module.rpartition(".")[2], name)

    @property
    def weight_files(self) -> tuple[PublishedFile, ...]:
        """The published weight files, each with address, hash, size and licence."""
        return tuple(file for file in PUBLISHED_FILES if file.network == self.name)
