"""Whole networks of keras.applications, built by Keras and imported from the file it saves."""

import jax
import pytest

from flaxapps.registry import find_info
from tests.imported import check_import
from tests.networks import zero_initial_weights

NETWORKS = {  # smallest height and width of an image that Keras allows
    "ConvNeXtTiny": 32,
    "DenseNet121": 32, "DenseNet169": 32, "DenseNet201": 32,
    "EfficientNetB0": 32, "EfficientNetB1": 32, "EfficientNetB2": 32, "EfficientNetB3": 32, "EfficientNetB4": 32,
    "EfficientNetB5": 32,
    "EfficientNetV2B0": 32, "EfficientNetV2B1": 32, "EfficientNetV2B2": 32, "EfficientNetV2B3": 32,
    "EfficientNetV2S": 32, "EfficientNetV2M": 32,
    "InceptionResNetV2": 75, "InceptionV3": 75,
    "MobileNet": 32, "MobileNetV2": 32, "MobileNetV3Large": 32, "MobileNetV3Small": 32,
    "NASNetMobile": 32,
    "ResNet50": 32, "ResNet101": 32, "ResNet152": 32, "ResNet50V2": 32, "ResNet101V2": 32, "ResNet152V2": 32,
    "VGG16": 32, "VGG19": 32, "Xception": 71,
}  # fmt: skip # kept on few lines on purpose


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_network(name, tmp_path):
    import keras

    keras.backend.clear_session()
    size = NETWORKS[name]
    with jax.numpy_dtype_promotion("standard"), zero_initial_weights():
        model = getattr(keras.applications, name)(
            weights=None, include_top=False, input_shape=(size, size, 3), pooling="avg"
        )
    info = find_info(model.name)
    assert info is not None
    assert info.function == name
    try:
        check_import(model, tmp_path / "model.keras", tolerance=1e-4)
    finally:
        (tmp_path / "model.keras").unlink(missing_ok=True)
