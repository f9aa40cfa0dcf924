"""VGG19, built by `flaxapps.vgg16`; column E of table 1 of https://arxiv.org/abs/1409.1556."""

from flaxapps.applications.imagenet_utils import decode_predictions as decode_predictions
from flaxapps.applications.imagenet_utils import preprocessing
from flaxapps.vgg16 import vgg

VGG19 = vgg("VGG19", depth=19, parameters=143_667_240, top5=90.0)
preprocess_input = preprocessing("caffe", __name__)
