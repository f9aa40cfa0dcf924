import sys; sys.path.insert(0, "w")
from common_writer import *
import keras
from keras import layers as L, backend as K
from keras.models import Model, Sequential
TAG = "k%scf" % keras.__version__.replace(".", "")
K.set_image_data_format("channels_first")
def case(f):
    K.clear_session(); K.set_image_data_format("channels_first"); dump(TAG, f.__name__, f())
def flatten_dense():
    return Sequential([L.Conv2D(4, 3, activation="relu", input_shape=(3, 8, 6)), L.BatchNormalization(axis=1), L.MaxPooling2D(), L.Flatten(), L.Dense(5, activation="relu"), L.Dense(3, activation="softmax")])
def dropout_noise():
    x = L.Input((3, 8, 6)); y = L.Conv2D(4, 3)(x); y = L.Dropout(.3, noise_shape=(None, 4, 1, 1))(y); y = L.SpatialDropout2D(.2)(y); y = L.UpSampling2D()(y); y = L.ZeroPadding2D((1, 2))(y); y = L.Cropping2D(((0, 1), (1, 0)))(y); return Model(x, L.GlobalAveragePooling2D()(y))
def concat():
    x = L.Input((3, 8, 6)); a = L.Conv2D(4, 3, padding="same")(x); b = L.Conv2D(5, 3, padding="same")(x); y = L.concatenate([a, b], axis=1); y = L.Conv2DTranspose(4, 3, strides=2, padding="same")(y); return Model(x, y)
def reshape():
    x = L.Input((3, 8, 6)); y = L.Conv2D(4, 3)(x); y = L.Reshape((4, 24))(y); y = L.Permute((2, 1))(y); return Model(x, L.Flatten()(L.Dense(3)(y)))
def softmax_map():
    x = L.Input((3, 8, 6)); y = L.Conv2D(4, 3)(x); y = L.Activation("softmax")(y); return Model(x, y)
def prelu():
    x = L.Input((3, 8, 6)); y = L.Conv2D(4, 3)(x); y = L.PReLU(shared_axes=[2, 3])(y); y = L.PReLU()(y); return Model(x, L.GlobalMaxPooling2D()(y))
def flatten_last():  # a model that mixes: the data goes on as it is
    x = L.Input((3, 8, 6)); y = L.Conv2D(4, 3)(x); y = L.BatchNormalization()(y); return Model(x, L.Dense(2)(L.Flatten()(y)))
def permute_images():
    x = L.Input((3, 8, 6)); y = L.Conv2D(4, 3)(x); y = L.Permute((2, 3, 1))(y); y = L.Dense(3)(y); return Model(x, L.Flatten()(y))
def dense_on_images():
    x = L.Input((3, 8, 6)); y = L.Conv2D(4, 3)(x); y = L.Dense(3)(y); y = L.Add()([y, y]); return Model(x, y)
def mixed():
    x = L.Input((3, 8, 6)); y = L.Conv2D(4, 3, data_format="channels_first")(x); y = L.Permute((2, 3, 1))(y); y = L.Conv2D(5, 3, data_format="channels_last")(y); return Model(x, L.Flatten(**({"data_format": "channels_last"} if "2.2" in keras.__version__ or "2.3" in keras.__version__ else {}))(y))
for n, f in list(globals().items()):
    if callable(f) and getattr(f, "__module__", "") == "__main__" and n != "case":
        try: case(f)
        except Exception as e: print("BUILD FAILED", n, repr(e)[:300])
