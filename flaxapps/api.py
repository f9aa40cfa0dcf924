"""All public names of `flaxapps`, which imports this module when the first of them is used."""

from flaxapps import explain as explain
from flaxapps import image as image
from flaxapps import layers as layers
from flaxapps.applications.info import ModelInfo as ModelInfo
from flaxapps.catalogue import *  # noqa: F403 (one list of networks is enough)
from flaxapps.inference.compile import Compiled as Compiled
from flaxapps.inference.compile import compile as compile
from flaxapps.inference.export import export as export
from flaxapps.inference.export import load_exported as load_exported
from flaxapps.inference.predict import predict as predict
from flaxapps.layers import Input as Input
from flaxapps.model import Model as Model
from flaxapps.model import Network as Network
from flaxapps.quantization.quantize import quantization_report as quantization_report
from flaxapps.quantization.quantize import quantize as quantize
from flaxapps.quantization.report import QuantizationReport as QuantizationReport
from flaxapps.registry import get_model as get_model
from flaxapps.registry import list_models as list_models
from flaxapps.registry import model_info as model_info
from flaxapps.saving.load import load_model as load_model
from flaxapps.saving.save import save_model as save_model
from flaxapps.transforms.fold import fold_batch_norm as fold_batch_norm
from flaxapps.transforms.optimize import optimize as optimize
from flaxapps.transforms.rewrite import rewrite as rewrite
