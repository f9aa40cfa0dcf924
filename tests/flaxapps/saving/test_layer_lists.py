"""Every layer class of Keras 3.15 and tf.keras 2.15 is imported, or refused by name with a remedy."""

import pytest

from flaxapps.saving.dialects import REFUSED, Version, normalized
from flaxapps.saving.from_config import KINDS, OURS, refusal

# No layers of a model: what others are made of.
ABSTRACT = ("AbstractRNNCell", "Layer", "PreprocessingLayer", "Wrapper")
# What stays out, by the reason that the message has.
SEQUENCES_AND_TEXT = (
    "Bidirectional", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D", "CuDNNGRU", "CuDNNLSTM", "FlaxLayer", "GRU", "GRUCell",
    "HashedCrossing", "Hashing", "IntegerLookup", "JaxLayer", "LSTM", "LSTMCell", "MelSpectrogram", "RNN",
    "ReversibleEmbedding", "STFTSpectrogram", "SimpleRNN", "SimpleRNNCell", "StackedRNNCells", "StringLookup",
    "TFSMLayer", "TextVectorization", "TorchModuleWrapper",
)  # fmt: skip # kept on few lines on purpose
CODE = ("Lambda",)
OTHERS = (
    "ContrastLimitedAdaptiveHistogramEqualization", "DenseFeatures", "LinearModel", "LocallyConnected1D",
    "LocallyConnected2D", "MaxNumBoundingBoxes", "RandomFourierFeatures", "SequenceFeatures", "WideDeepModel",
)  # fmt: skip # kept on few lines on purpose
WORDS = {
    **dict.fromkeys(SEQUENCES_AND_TEXT, r"it \({kind}, for sequences or text, which is not imported; .*register"),
    **dict.fromkeys(CODE, r"it \({kind}: it carries Python code, which is never run; .*register"),
    **dict.fromkeys(OTHERS, r'it \({kind}; flaxapps.layers.register\("{kind}"\) says how to import it\)'),
}
# `tf.keras.layers` and `tf.compat.v1.keras.layers` of TensorFlow 2.15, every class that is a layer.
TF_KERAS = (
    "AbstractRNNCell", "Activation", "ActivityRegularization", "Add", "AdditiveAttention", "AlphaDropout", "Attention",
    "Average", "AveragePooling1D", "AveragePooling2D", "AveragePooling3D", "BatchNormalization", "Bidirectional",
    "CategoryEncoding", "CenterCrop", "Concatenate", "Conv1D", "Conv1DTranspose", "Conv2D", "Conv2DTranspose", "Conv3D",
    "Conv3DTranspose", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D", "Cropping1D", "Cropping2D", "Cropping3D", "CuDNNGRU",
    "CuDNNLSTM", "Dense", "DenseFeatures", "DepthwiseConv1D", "DepthwiseConv2D", "Discretization", "Dot", "Dropout",
    "ELU", "EinsumDense", "Embedding", "Flatten", "GRU", "GRUCell", "GaussianDropout", "GaussianNoise",
    "GlobalAveragePooling1D", "GlobalAveragePooling2D", "GlobalAveragePooling3D", "GlobalMaxPooling1D",
    "GlobalMaxPooling2D", "GlobalMaxPooling3D", "GroupNormalization", "HashedCrossing", "Hashing", "Identity",
    "InputLayer", "IntegerLookup", "LSTM", "LSTMCell", "Lambda", "Layer", "LayerNormalization", "LeakyReLU",
    "LinearModel", "LocallyConnected1D", "LocallyConnected2D", "Masking", "MaxPooling1D", "MaxPooling2D",
    "MaxPooling3D", "Maximum", "Minimum", "MultiHeadAttention", "Multiply", "Normalization", "PReLU", "Permute",
    "PreprocessingLayer", "RNN", "RandomBrightness", "RandomContrast", "RandomCrop", "RandomFlip",
    "RandomFourierFeatures", "RandomHeight", "RandomRotation", "RandomTranslation", "RandomWidth", "RandomZoom", "ReLU",
    "RepeatVector", "Rescaling", "Reshape", "Resizing", "SeparableConv1D", "SeparableConv2D", "SequenceFeatures",
    "SimpleRNN", "SimpleRNNCell", "Softmax", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D",
    "SpectralNormalization", "StackedRNNCells", "StringLookup", "Subtract", "SyncBatchNormalization",
    "TextVectorization", "ThresholdedReLU", "TimeDistributed", "UnitNormalization", "UpSampling1D", "UpSampling2D",
    "UpSampling3D", "WideDeepModel", "Wrapper", "ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D",
)  # fmt: skip # kept on few lines on purpose
TF_KERAS_215 = Version((2, 15, 0), tensorflow=True)
KERAS_315 = Version((3, 15, 1))


def classes_of_keras():
    import keras

    values = vars(keras.layers).values()
    return {each.__name__ for each in values if isinstance(each, type) and issubclass(each, keras.layers.Layer)}


def reason(name, version):
    """Why a layer of a class is refused, or None."""
    entry = normalized({"class_name": name, "config": {"name": "it"}, "inbound_nodes": []}, version)
    return entry.get(REFUSED) or refusal(entry, KINDS)


@pytest.mark.filterwarnings("ignore:Layer 'it'")  # RandomHeight and RandomWidth of tf.keras
@pytest.mark.parametrize("version", [KERAS_315, TF_KERAS_215], ids=str)
def test_every_class_is_imported_or_refused_by_name(version):
    classes = classes_of_keras() if version is KERAS_315 else set(TF_KERAS)
    refused = {name for name in classes if name not in ABSTRACT and reason(name, version)}
    assert refused == classes & set(WORDS)


@pytest.mark.parametrize("name", sorted(WORDS))
def test_the_reason_names_the_class_and_the_remedy(name):
    import re

    found = reason(name, TF_KERAS_215 if name in TF_KERAS else KERAS_315)
    assert re.match(WORDS[name].replace("{kind}", name), found)


def test_nothing_is_listed_that_does_not_exist():
    classes = classes_of_keras() | set(TF_KERAS)
    assert set(WORDS) | set(ABSTRACT) <= classes
    of_models = {"CustomScaleLayer", "LayerScale", "StochasticDepth"}  # of keras.applications
    assert {kind.__name__ for kind in KINDS.values() if kind not in OURS} - of_models <= classes
