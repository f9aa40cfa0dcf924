"""Alias of `flaxapps.resnet` for ResNet50, under Keras's older module name."""

from flaxapps.resnet import ResNet50 as ResNet50
from flaxapps.resnet import decode_predictions as decode_predictions
from flaxapps.resnet import preprocess_input as preprocess_input
