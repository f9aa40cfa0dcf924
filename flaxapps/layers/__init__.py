"""Keras's layer kinds: configuration, output shape and computation of each. All numeric traps live here.

Fields are the Keras config keys, with Keras's defaults. Images are (batch, height, width, channels) throughout;
`Model` transposes at its boundary for channels_first. Arrays keep Keras's shapes, so that weights load unchanged.
Formulas are those of Keras 3 on the JAX backend (keras/src/layers, keras/src/backend/jax/nn.py).
"""

from flaxapps.layers.activation import Activation as Activation
from flaxapps.layers.convolution import Conv2D as Conv2D
from flaxapps.layers.convolution import SeparableConv2D as SeparableConv2D
from flaxapps.layers.dense import Dense as Dense
from flaxapps.layers.inputs import Input as Input
from flaxapps.layers.inputs import InputLayer as InputLayer
from flaxapps.layers.merging import Add as Add
from flaxapps.layers.merging import Concatenate as Concatenate
from flaxapps.layers.nested import Functional as Functional
from flaxapps.layers.nested import Sequential as Sequential
from flaxapps.layers.normalization import BatchNormalization as BatchNormalization
from flaxapps.layers.operations import FUNCTIONS as FUNCTIONS
from flaxapps.layers.operations import Operation as Operation
from flaxapps.layers.operations import Slot as Slot
from flaxapps.layers.pooling import AveragePooling2D as AveragePooling2D
from flaxapps.layers.pooling import GlobalAveragePooling2D as GlobalAveragePooling2D
from flaxapps.layers.pooling import GlobalMaxPooling2D as GlobalMaxPooling2D
from flaxapps.layers.pooling import MaxPooling2D as MaxPooling2D
from flaxapps.layers.registration import register as register
from flaxapps.layers.registration import registered as registered
from flaxapps.layers.regularization import Dropout as Dropout
from flaxapps.layers.reshaping import Flatten as Flatten
from flaxapps.layers.reshaping import ZeroPadding2D as ZeroPadding2D
