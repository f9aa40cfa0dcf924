"""Fine-tuning of flaxapps models with Optax."""

from train.masks import frozen_layers as frozen_layers
from train.masks import trainable_mask as trainable_mask
