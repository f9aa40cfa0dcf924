"""Config dialects: convert the configurations of all Keras versions to the form of Keras 3.15.

Every layer goes through three steps:

1. `spelling`: rename classes and options, drop options without effect (`keras1` for those of Keras 1).
2. `tensorflow_ops`: convert TensorFlow functions that tf.keras recorded as layers to operations of Keras 3.
3. `meaning`: resolve options whose meaning depends on the version.

`models` walks through nested models, after `structure` has validated them.
"""

from flaxapps.saving.dialects.models import MODELS as MODELS
from flaxapps.saving.dialects.models import REFUSED as REFUSED
from flaxapps.saving.dialects.models import first_layer_shape as first_layer_shape
from flaxapps.saving.dialects.models import normalized as normalized
from flaxapps.saving.dialects.structure import check_structure as check_structure
from flaxapps.saving.dialects.structure import stored_shape as stored_shape
from flaxapps.saving.dialects.version import Version as Version
from flaxapps.saving.dialects.version import read_version as read_version
