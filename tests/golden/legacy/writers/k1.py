"""Keras 1.2: python w/k1.py th|tf"""
import sys; sys.path.insert(0, "w")
from common_writer import *
import keras
from keras import layers as L, backend as K
from keras.models import Model, Sequential
ORDER = sys.argv[1]; K.set_image_dim_ordering(ORDER); TAG = "k122" + ORDER
S = (3, 8, 6) if ORDER == "th" else (8, 6, 3); AXIS = 1 if ORDER == "th" else 3
def inputs_of_1(m):
    rng = np.random.RandomState(1); return [rng.normal(0, 1, [2] + [int(d) for d in K.int_shape(t)[1:]]).astype("float32") for t in m.inputs]
def positive(m):  # Keras 1 calls the variance running_std
    for l in m.layers:
        if hasattr(l, "layers"): positive(l)
        elif "BatchNorm" in type(l).__name__: l.set_weights([np.abs(w) + (.5 if i in (0, 3) else 0) for i, w in enumerate(l.get_weights())])
def case(f):
    m = f(); randomise(m); positive(m); dump(TAG, f.__name__, m, xs=inputs_of_1(m), rand=False)
def plain_seq():
    m = Sequential(); m.add(L.Convolution2D(4, 3, 3, activation="relu", input_shape=S)); m.add(L.BatchNormalization(axis=AXIS)); m.add(L.MaxPooling2D()); m.add(L.Dropout(.3)); m.add(L.Flatten()); m.add(L.Dense(5, activation="hard_sigmoid")); m.add(L.Dense(3, activation="softmax")); return m
def square():  # kernels of (3, 3, 3, 3), whose layout the shape does not tell
    m = Sequential(); m.add(L.Convolution2D(3, 3, 3, border_mode="same", subsample=(2, 1), input_shape=S)); m.add(L.Activation("relu")); m.add(L.GlobalAveragePooling2D()); return m
def merges():
    x = L.Input(shape=S); a = L.Convolution2D(4, 3, 3, border_mode="same")(x); b = L.Convolution2D(4, 1, 1, bias=False)(x)
    y = L.merge([a, b], mode="sum"); z = L.merge([a, y], mode="concat", concat_axis=AXIS); z = L.merge([z, z], mode="mul"); z = L.merge([z, z], mode="ave"); z = L.merge([z, z], mode="max"); return Model(x, L.GlobalMaxPooling2D()(z))
def kinds():
    x = L.Input(shape=S); y = L.ZeroPadding2D((1, 2))(x); y = L.AtrousConvolution2D(4, 3, 3, atrous_rate=(2, 2))(y); y = L.LeakyReLU(.1)(y); y = L.ELU(.5)(y); y = L.UpSampling2D()(y); y = L.Cropping2D(((1, 0), (0, 1)))(y); y = L.AveragePooling2D((2, 3), strides=(1, 2), border_mode="same")(y); y = L.SpatialDropout2D(.2)(y); y = L.GaussianNoise(.1)(y); return Model(x, L.Flatten()(y))
def nested():
    x = L.Input(shape=S); b = Model(x, L.Convolution2D(4, 3, 3)(x)); m = Sequential(); m.add(b); m.add(L.Flatten()); m.add(L.Dense(2)); return m
def separable():
    x = L.Input(shape=S); return Model(x, L.SeparableConvolution2D(4, 3, 3, depth_multiplier=2)(x))
def deconvolution():
    x = L.Input(batch_shape=(2,) + S); n = 4; h, w = 16, 12; o = (2, n, h, w) if ORDER == "th" else (2, h, w, n); return Model(x, L.Deconvolution2D(n, 3, 3, output_shape=o, subsample=(2, 2), border_mode="same")(x))
def thresholded():
    x = L.Input(shape=S); y = L.Convolution2D(4, 3, 3)(x); y = L.ThresholdedReLU(.3)(y); y = L.PReLU(shared_axes=[2, 3] if ORDER == "th" else [1, 2])(y); return Model(x, L.GlobalAveragePooling2D()(y))
def dense_only():
    m = Sequential(); m.add(L.Dense(4, input_dim=9, activation="tanh", W_regularizer="l2")); m.add(L.Dense(3, activation="softmax")); return m
for n, f in list(globals().items()):
    if callable(f) and getattr(f, "__module__", "") == "__main__" and n not in ("case", "inputs_of_1", "positive"):
        try: case(f)
        except Exception as e: print("BUILD FAILED", n, repr(e)[:300])
