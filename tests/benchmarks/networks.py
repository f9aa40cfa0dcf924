"""The networks of the inference benchmark: the five classic ones, and one of each newer family."""

from typing import NamedTuple


class Benchmarked(NamedTuple):
    """A network in all runtimes.

    Attributes:
        keras: Its name in `keras.applications`.
        size: Height and width of the images.
        torch: Its function in torchvision, or "timm/NAME"; "" if neither has it. ONNX Runtime and OpenVINO get this.
    """

    keras: str
    size: int
    torch: str


NETWORKS = {
    "vgg16": Benchmarked("VGG16", 224, "vgg16"),
    "vgg19": Benchmarked("VGG19", 224, "vgg19"),
    "resnet50": Benchmarked("ResNet50", 224, "resnet50"),
    "inception_v3": Benchmarked("InceptionV3", 299, "inception_v3"),
    "xception": Benchmarked("Xception", 299, "timm/legacy_xception"),
    "resnet50_v2": Benchmarked("ResNet50V2", 224, "timm/resnetv2_50"),
    "inception_resnet_v2": Benchmarked("InceptionResNetV2", 299, "timm/inception_resnet_v2"),
    "mobilenet": Benchmarked("MobileNet", 224, "timm/mobilenetv1_100"),
    "mobilenet_v2": Benchmarked("MobileNetV2", 224, "mobilenet_v2"),
    "mobilenet_v3_large": Benchmarked("MobileNetV3Large", 224, "mobilenet_v3_large"),
    "densenet121": Benchmarked("DenseNet121", 224, "densenet121"),
    "nasnet_mobile": Benchmarked("NASNetMobile", 224, ""),
    "efficientnet_b0": Benchmarked("EfficientNetB0", 224, "efficientnet_b0"),
    "efficientnet_v2_s": Benchmarked("EfficientNetV2S", 224, "efficientnet_v2_s"),
    "convnext_tiny": Benchmarked("ConvNeXtTiny", 224, "convnext_tiny"),
}
CLASSIC = ("vgg16", "vgg19", "resnet50", "inception_v3", "xception")
SIZES = {name: network.size for name, network in NETWORKS.items()}
