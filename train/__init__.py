"""Fine-tuning of flaxapps models with Optax: `from flaxapps import train`."""

if __name__ != "flaxapps.train":  # the folder of a checkout, which `import train` finds there
    raise ImportError(f"This is flaxapps.train: write `from flaxapps import train` in place of `import {__name__}`")

from flaxapps.photos.class_names import load_class_names as load_class_names
from flaxapps.photos.class_names import save_class_names as save_class_names
from flaxapps.train.callbacks import CSVLog as CSVLog
from flaxapps.train.callbacks import EpochEnd as EpochEnd
from flaxapps.train.callbacks import ProgressDisplay as ProgressDisplay
from flaxapps.train.callbacks import StepEnd as StepEnd
from flaxapps.train.callbacks import TensorBoard as TensorBoard
from flaxapps.train.data.conversion import as_dataset as as_dataset
from flaxapps.train.data.datasets import ArrayDataset as ArrayDataset
from flaxapps.train.data.datasets import Dataset as Dataset
from flaxapps.train.data.folders import image_folder as image_folder
from flaxapps.train.data.tables import image_table as image_table
from flaxapps.train.early_stopping import EarlyStopping as EarlyStopping
from flaxapps.train.errors import CheckpointError as CheckpointError
from flaxapps.train.errors import Interrupted as Interrupted
from flaxapps.train.errors import TrainingError as TrainingError
from flaxapps.train.evaluation import evaluate as evaluate
from flaxapps.train.freezing.features import FeatureDataset as FeatureDataset
from flaxapps.train.freezing.features import compute_features as compute_features
from flaxapps.train.freezing.frozen import frozen_layers as frozen_layers
from flaxapps.train.freezing.frozen import merge_params as merge_params
from flaxapps.train.freezing.frozen import param_labels as param_labels
from flaxapps.train.freezing.frozen import split_params as split_params
from flaxapps.train.freezing.frozen import trainable_mask as trainable_mask
from flaxapps.train.freezing.split import split_at_frozen as split_at_frozen
from flaxapps.train.history import write_csv as write_csv
from flaxapps.train.loop import FitResult as FitResult
from flaxapps.train.loop import fit as fit
from flaxapps.train.options import CheckpointFolder as CheckpointFolder
from flaxapps.train.options import Computation as Computation
from flaxapps.train.options import Devices as Devices
from flaxapps.train.options import FeatureCache as FeatureCache
from flaxapps.train.step.augmentation import Augmentation as Augmentation
from flaxapps.train.step.loss_scale import dynamic_loss_scale as dynamic_loss_scale
from flaxapps.train.step.losses import Objective as Objective
from flaxapps.train.step.losses import binary_crossentropy as binary_crossentropy
from flaxapps.train.step.losses import categorical_crossentropy as categorical_crossentropy
from flaxapps.train.step.losses import make_objective as make_objective
from flaxapps.train.step.losses import sparse_categorical_crossentropy as sparse_categorical_crossentropy
from flaxapps.train.step.metrics import Mean as Mean
from flaxapps.train.step.metrics import accuracy as accuracy
from flaxapps.train.step.metrics import add_sums as add_sums
from flaxapps.train.step.metrics import confusion_matrix as confusion_matrix
from flaxapps.train.step.metrics import summarise as summarise
from flaxapps.train.step.metrics import top_k_accuracy as top_k_accuracy
from flaxapps.train.step.state import TrainState as TrainState
from flaxapps.train.step.state import create_state as create_state
from flaxapps.train.step.step import eval_step as eval_step
from flaxapps.train.step.step import train_step as train_step
from flaxapps.transforms.logits import last_activation as last_activation
from flaxapps.transforms.logits import without_last_activation as without_last_activation
