"""Convert Keras weight files to trees of arrays and back. Requires neither JAX nor Keras."""

from weight_port.download import fetch as fetch
from weight_port.errors import DownloadError as DownloadError
from weight_port.errors import WeightError as WeightError
from weight_port.loading import load_weights as load_weights
from weight_port.readers import read_config as read_config
from weight_port.writers import save_weights as save_weights
