"""Keras Applications as pure JAX functions.

A network is a hashable static description (`Model`) plus an explicit tree of arrays. Weights come from the files
Keras itself publishes and writes, land unchanged, and can go back.
"""

from flaxapps import explain as explain
from flaxapps import image as image
from flaxapps import layers as layers
from flaxapps.compilation import Compiled as Compiled
from flaxapps.compilation import compile as compile
from flaxapps.exporting import save_model as save_model
from flaxapps.folding import fold_batch_norm as fold_batch_norm
from flaxapps.importing import load_model as load_model
from flaxapps.inference import predict as predict
from flaxapps.layers import Input as Input
from flaxapps.model import Model as Model
from flaxapps.network import Network as Network
from flaxapps.optimizing import optimize as optimize
from flaxapps.registry import ModelInfo as ModelInfo
from flaxapps.registry import get_model as get_model
from flaxapps.registry import list_models as list_models
from flaxapps.registry import model_info as model_info
from flaxapps.rewriting import rewrite as rewrite
from flaxapps.stablehlo import export as export
from flaxapps.stablehlo import load_exported as load_exported
