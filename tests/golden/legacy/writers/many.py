"""One question per file, for any Keras: python w/many.py tf|keras TAG FORMS [PATTERN ...]

FORMS: h5, keras, weights (JSON of the model beside .weights.h5), json (JSON beside a legacy .h5 of weights).
What a version has no class or option for is reported as SKIPPED.
"""
import fnmatch, os, sys, traceback, warnings
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import numpy as np
from common_writer import ROOT, randomise
FLAVOUR, TAG, FORMS = sys.argv[1], sys.argv[2], sys.argv[3].split(",")
tf = None
if FLAVOUR == "tf":
    import tensorflow as tf
    keras = tf.keras
else:
    import keras
    if keras.__version__[0] != "3":
        import tensorflow as tf
L, K, Model, Sequential = keras.layers, keras.backend, keras.models.Model, keras.models.Sequential
ops = getattr(keras, "ops", None) if FLAVOUR == "keras" and keras.__version__[0] == "3" else None
Input = L.Input if hasattr(L, "Input") else keras.Input
try: E = L.experimental.preprocessing
except AttributeError: E = L
def P(name): return getattr(L, name) if hasattr(L, name) else getattr(E, name)
S = (9, 10, 3)
CASES = {}
def put(name, build, **kw):
    assert name not in CASES, name
    CASES[name] = (build, kw)
def case(f=None, **kw):
    if f is None: return lambda g: case(g, **kw)
    put(f.__name__, f, **kw); return f
def one(name, layer, shape=S, **kw):
    def build():
        x = Input(shape); return Model(x, layer()(x))
    put(name, build, **kw)
def ints(high, *shape, dtype="int32"): return np.random.RandomState(5).randint(0, high, shape).astype(dtype)

# --- single layers
for i, (n, s, kw) in enumerate([
    ("Conv2D", S, dict(filters=4, kernel_size=3, strides=(2, 3), padding="same")),
    ("Conv2D", S, dict(filters=4, kernel_size=(1, 5), strides=(2, 2), padding="valid", use_bias=False)),
    ("Conv2D", S, dict(filters=4, kernel_size=3, dilation_rate=(2, 1), padding="same", activation="elu")),
    ("Conv2D", S, dict(filters=4, kernel_size=3, dilation_rate=3)),
    ("Conv2D", (9, 10, 4), dict(filters=6, kernel_size=(2, 4), groups=2, padding="same")),
    ("Conv2D", S, dict(filters=4, kernel_size=2, data_format="channels_last", padding="SAME")),
    ("Conv1D", (12, 3), dict(filters=4, kernel_size=3, dilation_rate=2, padding="causal")),
    ("Conv1D", (12, 3), dict(filters=4, kernel_size=4, strides=3, padding="same")),
    ("Conv1D", (12, 3), dict(filters=4, kernel_size=4, strides=2, padding="causal")),
    ("Conv3D", (5, 6, 7, 2), dict(filters=3, kernel_size=(2, 3, 1), strides=(1, 2, 2), padding="same")),
    ("Conv3D", (5, 6, 7, 2), dict(filters=3, kernel_size=2, dilation_rate=2, activation="tanh")),
    ("DepthwiseConv2D", S, dict(kernel_size=3, depth_multiplier=2, strides=2, padding="same", activation="relu")),
    ("DepthwiseConv2D", S, dict(kernel_size=(3, 2), depth_multiplier=3, use_bias=False)),
    ("DepthwiseConv2D", S, dict(kernel_size=3, dilation_rate=2)),
    ("DepthwiseConv2D", S, dict(kernel_size=3, dilation_rate=(2, 2), padding="same", depth_multiplier=2)),
    ("DepthwiseConv1D", (12, 3), dict(kernel_size=3, depth_multiplier=2, padding="same", strides=2)),
    ("DepthwiseConv1D", (12, 3), dict(kernel_size=3, dilation_rate=2)),
    ("SeparableConv2D", S, dict(filters=5, kernel_size=(3, 2), strides=2, padding="same", depth_multiplier=3)),
    ("SeparableConv2D", S, dict(filters=5, kernel_size=3, dilation_rate=2, activation="relu", use_bias=False)),
    ("SeparableConv1D", (12, 3), dict(filters=5, kernel_size=3, strides=2, padding="same", depth_multiplier=2)),
    ("SeparableConv1D", (12, 3), dict(filters=5, kernel_size=3, dilation_rate=2, padding="same")),
    ("SeparableConv1D", (12, 3), dict(filters=5, kernel_size=3, dilation_rate=2, padding="causal")),
    ("Conv2DTranspose", (5, 6, 3), dict(filters=4, kernel_size=3, strides=2, padding="same")),
    ("Conv2DTranspose", (5, 6, 3), dict(filters=4, kernel_size=2, strides=3)),
    ("Conv2DTranspose", (5, 6, 3), dict(filters=4, kernel_size=(5, 4), strides=(3, 2), padding="valid", activation="relu")),
    ("Conv2DTranspose", (5, 6, 3), dict(filters=4, kernel_size=(4, 3), strides=(2, 3), padding="same", output_padding=1)),
    ("Conv2DTranspose", (5, 6, 3), dict(filters=4, kernel_size=4, strides=2, padding="valid", output_padding=(0, 1))),
    ("Conv2DTranspose", (5, 6, 3), dict(filters=4, kernel_size=1, strides=2, padding="same", use_bias=False)),
    ("Conv2DTranspose", (5, 6, 3), dict(filters=4, kernel_size=3, dilation_rate=2)),
    ("Conv2DTranspose", (5, 6, 3), dict(filters=4, kernel_size=3, dilation_rate=(2, 2), padding="same")),
    ("Conv2DTranspose", (None, None, 3), dict(filters=4, kernel_size=3, strides=2, padding="same")),
    ("Conv1DTranspose", (6, 3), dict(filters=4, kernel_size=3, strides=2, padding="same")),
    ("Conv1DTranspose", (6, 3), dict(filters=4, kernel_size=4, strides=3, output_padding=1)),
    ("Conv1DTranspose", (6, 3), dict(filters=4, kernel_size=4, dilation_rate=2)),
    ("Conv3DTranspose", (3, 4, 5, 2), dict(filters=3, kernel_size=3, strides=2, padding="same")),
    ("Conv3DTranspose", (3, 4, 5, 2), dict(filters=3, kernel_size=(2, 3, 2), strides=(1, 2, 3), output_padding=None)),
    ("MaxPooling2D", S, dict(pool_size=(2, 3), strides=(1, 2), padding="same")),
    ("MaxPooling2D", S, dict(pool_size=3, strides=2)),
    ("AveragePooling2D", S, dict(pool_size=(3, 2), strides=2, padding="same")),
    ("AveragePooling2D", S, dict(pool_size=2, strides=3)),
    ("MaxPooling1D", (11, 3), dict(pool_size=3, strides=2, padding="same")),
    ("AveragePooling1D", (11, 3), dict(pool_size=3, padding="same")),
    ("MaxPooling3D", (5, 6, 7, 2), dict(pool_size=(2, 1, 3), padding="same")),
    ("AveragePooling3D", (5, 6, 7, 2), dict(pool_size=2, strides=(1, 2, 3), padding="same")),
    ("GlobalAveragePooling2D", S, dict(keepdims=True)), ("GlobalMaxPooling2D", S, dict(keepdims=True)),
    ("GlobalMaxPooling2D", S, {}), ("GlobalAveragePooling1D", (8, 3), {}), ("GlobalMaxPooling1D", (8, 3), dict(keepdims=True)),
    ("GlobalAveragePooling3D", (5, 6, 7, 2), {}), ("GlobalMaxPooling3D", (5, 6, 7, 2), {}),
    ("GlobalAvgPool2D", S, {}), ("MaxPool2D", S, {}), ("AvgPool2D", S, dict(padding="same")),
    ("ZeroPadding2D", S, dict(padding=((1, 2), (3, 0)))), ("ZeroPadding2D", S, dict(padding=2)), ("ZeroPadding2D", S, dict(padding=(1, 3))),
    ("ZeroPadding1D", (6, 3), dict(padding=(1, 2))), ("ZeroPadding1D", (6, 3), dict(padding=2)), ("ZeroPadding3D", (3, 4, 5, 2), dict(padding=((1, 0), (2, 1), (0, 3)))),
    ("Cropping2D", S, dict(cropping=((1, 2), (3, 0)))), ("Cropping2D", S, dict(cropping=(1, 2))), ("Cropping1D", (9, 3), dict(cropping=(1, 2))),
    ("Cropping3D", (5, 6, 7, 2), dict(cropping=((1, 0), (2, 1), (0, 3)))),
    ("UpSampling2D", (4, 5, 3), dict(size=(2, 3))), ("UpSampling1D", (4, 3), dict(size=3)), ("UpSampling3D", (2, 3, 4, 2), dict(size=(1, 2, 3))),
    ("BatchNormalization", S, dict(axis=1)), ("BatchNormalization", S, dict(axis=2, epsilon=.1)), ("BatchNormalization", S, dict(axis=3, scale=False)),
    ("BatchNormalization", S, dict(axis=-2, center=False)), ("BatchNormalization", S, dict(axis=[1, 3])), ("BatchNormalization", S, dict(axis=[1, 2, 3])),
    ("BatchNormalization", S, dict(momentum=.5, trainable=False)), ("BatchNormalization", S, dict(center=False, scale=False)),
    ("BatchNormalization", S, dict(renorm=True)), ("BatchNormalization", S, dict(fused=False)), ("BatchNormalization", (7,), {}),
    ("BatchNormalization", (6, 4), {}), ("BatchNormalization", (6, 4), dict(axis=1)), ("BatchNormalization", (3, 4, 5, 2), {}),
    ("BatchNormalization", S, dict(synchronized=True)),
    ("LayerNormalization", S, dict(axis=[1, 2])), ("LayerNormalization", S, dict(axis=1, epsilon=.1)), ("LayerNormalization", S, dict(axis=[-1])),
    ("LayerNormalization", S, dict(axis=[1, 2, 3], scale=False)), ("LayerNormalization", S, dict(axis=-2, center=False)), ("LayerNormalization", (7,), {}),
    ("LayerNormalization", S, dict(rms_scaling=True)), ("LayerNormalization", S, dict(axis=(1, 3))), ("LayerNormalization", S, dict(axis=(3, 1))),
    ("GroupNormalization", (6, 5, 4), dict(groups=2)), ("GroupNormalization", (6, 5, 4), dict(groups=-1)), ("GroupNormalization", (6, 5, 4), dict(groups=1, epsilon=.1, center=False)),
    ("GroupNormalization", (6, 5, 4), dict(groups=3, axis=1)), ("GroupNormalization", (6, 4), dict(groups=2, scale=False)), ("GroupNormalization", (4,), dict(groups=2)),
    ("UnitNormalization", S, {}), ("UnitNormalization", S, dict(axis=1)), ("UnitNormalization", S, dict(axis=[1, 2])), ("RMSNormalization", S, dict(axis=-1, epsilon=.01)),
    ("ReLU", S, dict(max_value=1.5, negative_slope=.1, threshold=.2)), ("ReLU", S, dict(max_value=0.5)), ("ReLU", S, dict(negative_slope=.3)), ("ReLU", S, dict(threshold=.4)),
    ("LeakyReLU", S, {}), ("LeakyReLU", S, dict(alpha=.2)), ("LeakyReLU", S, dict(alpha=0.)), ("LeakyReLU", S, dict(negative_slope=.2)), ("ELU", S, dict(alpha=.6)), ("PReLU", S, {}),
    ("PReLU", S, dict(shared_axes=[1])), ("PReLU", S, dict(shared_axes=[1, 2])), ("PReLU", S, dict(shared_axes=[2, 3])), ("PReLU", (7,), {}), ("ThresholdedReLU", S, dict(theta=.3)),
    ("Softmax", S, {}), ("Softmax", S, dict(axis=1)), ("Softmax", S, dict(axis=[1, 2])), ("Softmax", S, dict(axis=-2)), ("Dense", S, dict(units=4, activation="relu")),
    ("Dense", (6, 4), dict(units=5, use_bias=False)), ("Flatten", (7,), {}), ("Flatten", (6, 4), {}), ("Flatten", S, dict(data_format="channels_last")), ("Flatten", S, dict(data_format="channels_first")),
    ("Reshape", S, dict(target_shape=(-1,))), ("Reshape", S, dict(target_shape=(5, -1, 3))), ("Reshape", S, dict(target_shape=(-1, 3))), ("Reshape", (None, 10, 3), dict(target_shape=(-1, 30))), ("Reshape", (6,), dict(target_shape=(1, 1, 6))),
    ("Permute", S, dict(dims=(3, 1, 2))), ("Permute", (6, 4), dict(dims=(2, 1))), ("RepeatVector", (5,), dict(n=3)), ("Masking", (6, 4), dict(mask_value=0.)),
    ("Dropout", S, dict(rate=.5, noise_shape=(None, 1, 1, 3), seed=3)), ("Dropout", S, dict(rate=0)), ("SpatialDropout2D", S, dict(rate=.3)), ("SpatialDropout1D", (6, 4), dict(rate=.3)), ("SpatialDropout3D", (2, 3, 4, 2), dict(rate=.3)),
    ("GaussianNoise", S, dict(stddev=.1)), ("GaussianDropout", S, dict(rate=.1)), ("AlphaDropout", S, dict(rate=.1)), ("ActivityRegularization", S, dict(l1=.1, l2=.2)),
    ("Identity", S, {}), ("Embedding", (6,), dict(input_dim=9, output_dim=4)), ("Embedding", (6,), dict(input_dim=9, output_dim=4, mask_zero=True)),
    ("LocallyConnected2D", S, dict(filters=2, kernel_size=3)), ("LocallyConnected1D", (6, 4), dict(filters=2, kernel_size=3)),
    ("Rescaling", S, dict(scale=1/255.)), ("Rescaling", S, dict(scale=1/127.5, offset=-1)), ("Rescaling", S, dict(scale=[1., 2., 3.], offset=[4., 5., 6.])),
    ("CenterCrop", S, dict(height=4, width=5)), ("CenterCrop", S, dict(height=5, width=4)), ("CenterCrop", S, dict(height=12, width=8)), ("CenterCrop", S, dict(height=9, width=10)), ("CenterCrop", (None, None, 3), dict(height=6, width=5)),
    ("RandomCrop", S, dict(height=4, width=5)), ("RandomCrop", S, dict(height=9, width=4)), ("RandomFlip", S, dict(mode="vertical")), ("RandomRotation", S, dict(factor=(-.2, .3), fill_mode="constant", interpolation="nearest", fill_value=2.)),
    ("RandomTranslation", S, dict(height_factor=.2, width_factor=(.1, .2), fill_mode="wrap")), ("RandomZoom", S, dict(height_factor=(.1, .2), width_factor=None, fill_mode="nearest")), ("RandomContrast", S, dict(factor=(.1, .2))),
    ("RandomBrightness", S, dict(factor=.2, value_range=(0, 1))), ("RandomHeight", S, dict(factor=.2)), ("RandomWidth", S, dict(factor=(.1, .2), interpolation="nearest")),
    ("Normalization", S, dict(mean=[1., 2., 3.], variance=[4., 5., 6.])), ("Normalization", S, dict(mean=2., variance=3., axis=None)), ("Normalization", S, dict(mean=2., variance=3.)), ("Normalization", S, dict(mean=[1., 2., 3.], variance=[4., 5., 6.], invert=True)),
    ("CategoryEncoding", (4,), dict(num_tokens=9, output_mode="multi_hot")), ("CategoryEncoding", (1,), dict(num_tokens=9, output_mode="one_hot")), ("CategoryEncoding", (4,), dict(num_tokens=9, output_mode="count")),
    ("Discretization", (4,), dict(bin_boundaries=[-.5, 0., .5])), ("EinsumDense", (6, 4), dict(equation="abc,cd->abd", output_shape=(None, 5), bias_axes="d", activation="relu")),
    ("LSTM", (6, 4), dict(units=3)), ("GRU", (6, 4), dict(units=3)), ("ConvLSTM2D", (3,) + S, dict(filters=2, kernel_size=3)), ("SimpleRNN", (6, 4), dict(units=3)),
    ("AlphaDropout", S, dict(rate=.1, noise_shape=(None, 1, 1, 3))),
    ("RandomGrayscale", S, dict(factor=.5)), ("AutoContrast", S, {}), ("Equalization", S, {}), ("Solarization", S, {}), ("MaxNumBoundingBoxes", S, dict(max_number=3)),
    ("AugMix", S, {}), ("RandAugment", S, {}), ("RandomColorJitter", S, {}), ("RandomErasing", S, {}), ("RandomGaussianBlur", S, {}), ("RandomHue", S, dict(factor=.2)), ("RandomInvert", S, {}),
    ("RandomPerspective", S, {}), ("RandomPosterization", S, dict(factor=4)), ("RandomSaturation", S, dict(factor=.2)), ("RandomSharpness", S, dict(factor=.2)), ("RandomShear", S, dict(x_factor=.2)), ("RandomElasticTransform", S, {}),
    ("Pipeline", S, dict(layers=[])), ("AdaptiveAveragePooling2D", S, dict(output_size=(3, 4))), ("AdaptiveMaxPooling2D", S, dict(output_size=3)),
]):
    xs = [ints(9, 2, *s)] if n in ("Embedding", "CategoryEncoding") else None
    rand = n not in ("Normalization",)
    kinds = sum(k.startswith("L_%s_" % n) for k in CASES)
    one("L_%s_%d" % (n, kinds), (lambda n=n, kw=kw: P(n)(**kw)), s, xs=xs, rand=rand, scale=100 if n in ("Rescaling", "AutoContrast", "Equalization") else 1)
for interpolation in ("nearest", "bilinear", "bicubic", "area", "lanczos3", "lanczos5", "gaussian", "mitchellcubic"):
    one("resizing_%s" % interpolation, lambda i=interpolation: P("Resizing")(6, 13, interpolation=i))
    one("resizing_up_%s" % interpolation, lambda i=interpolation: P("Resizing")(20, 17, interpolation=i))
    one("resizing_down_%s" % interpolation, lambda i=interpolation: P("Resizing")(3, 4, interpolation=i))
    one("resizing_crop_%s" % interpolation, lambda i=interpolation: P("Resizing")(6, 13, interpolation=i, crop_to_aspect_ratio=True))
    one("upsampling_%s" % interpolation, lambda i=interpolation: L.UpSampling2D((2, 3), interpolation=i), (4, 5, 3))
    one("upsampling3_%s" % interpolation, lambda i=interpolation: L.UpSampling2D(3, interpolation=i), (4, 5, 3))
    one("random_zoom_%s" % interpolation, lambda i=interpolation: P("RandomZoom")(.2, interpolation=i))
one("resizing_none", lambda: P("Resizing")(6, 7), (None, None, 3))
one("resizing_crop_none", lambda: P("Resizing")(6, 7, crop_to_aspect_ratio=True), (None, None, 3))
one("resizing_pad", lambda: P("Resizing")(6, 13, pad_to_aspect_ratio=True))
one("resizing_antialias", lambda: P("Resizing")(4, 4, antialias=True))
one("resizing_same", lambda: P("Resizing")(9, 10))
for a in ("relu elu selu softplus softsign tanh sigmoid hard_sigmoid exponential linear swish gelu mish softmax relu6 leaky_relu log_softmax silu hard_silu "
          "hard_swish celu glu log_sigmoid hard_tanh hard_shrink soft_shrink tanh_shrink squareplus sparse_plus sparsemax threshold").split():
    one("act_%s" % a, lambda a=a: L.Activation(a), (6, 5, 4))
    one("dense_%s" % a, lambda a=a: L.Dense(4, activation=a), (6,))
    one("conv_f_%s" % a, lambda a=a: L.Conv2D(4, 2, activation=getattr(keras.activations, a)))
if tf is not None:
    for a in "relu elu selu softplus softsign tanh sigmoid swish silu gelu softmax relu6 leaky_relu log_softmax crelu".split():
        one("conv_tfnn_%s" % a, lambda a=a: L.Conv2D(4, 2, activation=getattr(tf.nn, a)))
        one("act_tfnn_%s" % a, lambda a=a: L.Activation(getattr(tf.nn, a)))
    for a in "tanh sigmoid softplus exp".split():
        one("conv_tfmath_%s" % a, lambda a=a: L.Conv2D(4, 2, activation=getattr(tf.math, a)))
for n, kw in [("LeakyReLU", {}), ("LeakyReLU", dict(alpha=.2)), ("ReLU", dict(max_value=6.)), ("ReLU", dict(negative_slope=.2)), ("ELU", dict(alpha=.5)), ("Softmax", {}), ("PReLU", {}), ("ThresholdedReLU", dict(theta=.3)), ("Activation", dict(activation="swish"))]:
    k = sum(c.startswith("conv_layer_%s_" % n) for c in CASES)
    one("conv_layer_%s_%d" % (n, k), lambda n=n, kw=kw: L.Conv2D(4, 2, activation=getattr(L, n)(**kw)))
    one("dense_layer_%s_%d" % (n, k), lambda n=n, kw=kw: L.Dense(4, activation=getattr(L, n)(**kw)), (6,))
    one("act_layer_%s_%d" % (n, k), lambda n=n, kw=kw: L.Activation(getattr(L, n)(**kw)))

# --- wrappers, attention
V = (3, 9, 10, 3)
for n, f in [("conv", lambda: L.Conv2D(4, 3, strides=2, activation="relu")), ("dense", lambda: L.Dense(4)), ("bn", lambda: L.BatchNormalization()), ("flatten", lambda: L.Flatten()), ("dropout", lambda: L.Dropout(.3)),
             ("pool", lambda: L.MaxPooling2D((2, 3))), ("gap", lambda: L.GlobalAveragePooling2D()), ("act", lambda: L.Activation("relu")), ("reshape", lambda: L.Reshape((90, 3))), ("sep", lambda: L.SeparableConv2D(4, 3)),
             ("leaky", lambda: L.LeakyReLU(.2)), ("pad", lambda: L.ZeroPadding2D(((1, 2), (0, 3)))), ("up", lambda: L.UpSampling2D(2)), ("prelu", lambda: L.PReLU(shared_axes=[1, 2])), ("ln", lambda: L.LayerNormalization()), ("bn1", lambda: L.BatchNormalization(axis=1)),
             ("rescale", lambda: P("Rescaling")(.5, 1.)), ("resize", lambda: P("Resizing")(5, 4)), ("td", lambda: L.TimeDistributed(L.Dense(4))), ("lambda", lambda: L.Lambda(lambda x: x * 2)), ("frozen", lambda: L.Conv2D(4, 3, trainable=False))]:
    one("td_%s" % n, lambda f=f: L.TimeDistributed(f()), V)
@case
def td_sequential():
    s = Sequential([L.Conv2D(4, 3, input_shape=S), L.BatchNormalization(), L.Flatten(), L.Dense(3)]); x = Input(V); return Model(x, L.TimeDistributed(s)(x))
@case
def td_functional():
    a = Input(S); b = Model(a, L.GlobalAveragePooling2D()(L.BatchNormalization()(L.Conv2D(4, 3)(a)))); x = Input(V); return Model(x, L.GlobalMaxPooling1D()(L.TimeDistributed(b)(x)))
@case
def td_deferred():
    s = Sequential([L.Conv2D(4, 3), L.Flatten(), L.Dense(3)]); x = Input(V); return Model(x, L.TimeDistributed(s)(x))
@case
def td_first(): return Sequential([L.TimeDistributed(L.Conv2D(4, 3), input_shape=V), L.TimeDistributed(L.GlobalAveragePooling2D()), L.Flatten(), L.Dense(2)])
@case
def td_partly_frozen():
    a = Input(S); y = L.Conv2D(3, 3, padding="same", trainable=False)(a); y = L.Conv2D(3, 3, padding="same")(y); b = Model(a, y); x = Input(V); return Model(x, L.TimeDistributed(b)(x))
@case
def bidirectional(): x = Input((6, 4)); return Model(x, L.Bidirectional(L.LSTM(3))(x))
one("lambda_", lambda: L.Lambda(lambda x: x * 2))
@case
def attention():
    q, v = Input((4, 5)), Input((6, 5)); return Model([q, v], L.Attention(use_scale=True)([q, v]))
@case
def attention_three():
    q, v, k = Input((4, 5)), Input((6, 7)), Input((6, 5)); return Model([q, v, k], L.Attention(score_mode="concat")([q, v, k]))
@case
def additive_attention():
    q, v = Input((4, 5)), Input((6, 5)); return Model([q, v], L.AdditiveAttention()([q, v]))
@case
def mha():
    q, v = Input((4, 5)), Input((6, 7)); return Model([q, v], L.MultiHeadAttention(2, 3, value_dim=4, dropout=.1, use_bias=False, output_shape=6)(q, v))
@case
def mha_self(): x = Input((4, 6)); y = L.MultiHeadAttention(num_heads=2, key_dim=3)(x, x); return Model(x, L.LayerNormalization(epsilon=1e-6)(L.Add()([x, y])))
@case
def mha_keywords(): x = Input((4, 6)); y = L.MultiHeadAttention(num_heads=2, key_dim=3)(query=x, value=x, key=x); return Model(x, y)
@case
def mha_axes(): x = Input((4, 5, 6)); y = L.MultiHeadAttention(num_heads=2, key_dim=3, attention_axes=(2,))(x, x); return Model(x, y)
@case
def mha_scores(): x = Input((4, 6)); y, s = L.MultiHeadAttention(num_heads=2, key_dim=3)(x, x, return_attention_scores=True); return Model(x, [y, s])
@case
def mha_causal(): x = Input((4, 6)); y = L.MultiHeadAttention(num_heads=2, key_dim=3)(x, x, use_causal_mask=True); return Model(x, y)
@case
def spectral(): x = Input(S); return Model(x, L.SpectralNormalization(L.Conv2D(4, 3))(x))

# --- merging
for n in "add subtract multiply average maximum minimum concatenate".split():
    put("merge_" + n, lambda n=n: (lambda a, b: Model([a, b], getattr(L, n)([a, b])))(Input(S), Input(S)))
    put("merge_twice_" + n, lambda n=n: (lambda a: Model(a, getattr(L, n)([a, a, a] if n != "subtract" else [a, L.ReLU()(a)])))(Input(S)))
    put("merge_broadcast_" + n, lambda n=n: (lambda a, b: Model([a, b], getattr(L, n)([a, b])))(Input(S), Input((1, 1, 3))))
    put("merge_ranks_" + n, lambda n=n: (lambda a, b: Model([a, b], getattr(L, n)([a, b])))(Input(S), Input((3,))))
for ax in (1, 2, 3, -1, -2): put("concat_axis_%s" % str(ax).replace("-", "m"), lambda ax=ax: (lambda a, b: Model([a, b], L.Concatenate(axis=ax)([a, b])))(Input(S), Input(S)))
for i, (ax, norm) in enumerate([(1, False), (2, False), ((2, 1), False), (1, True), (-1, False), ((1, 2), True)]):
    put("dot_%d" % i, lambda ax=ax, norm=norm: (lambda a, b: Model([a, b], L.Dot(axes=ax, normalize=norm)([a, b])))(Input((5, 5)), Input((5, 5))))
put("dot_vectors", lambda: (lambda a, b: Model([a, b], L.dot([a, b], 1, normalize=True)))(Input((5,)), Input((5,))))
put("dot_4d", lambda: (lambda a, b: Model([a, b], L.Dot(axes=3)([a, b])))(Input((4, 5, 3)), Input((4, 5, 3))))

# --- models
def conv(n=4, **kw): return L.Conv2D(n, 3, **dict(dict(padding="same"), **kw))
def block(c=3, n=4, shape=S, name=None, frozen=()):
    x = Input(shape); y = x
    for i in range(2): y = L.BatchNormalization(trainable="b%d" % i not in frozen)(conv(n, trainable="c%d" % i not in frozen)(y))
    return Model(x, y, **({"name": name} if name else {}))
def gap(x): return L.GlobalAveragePooling2D()(x)
@case
def func_in_seq_in_func():
    s = Sequential([block(), L.ReLU(), L.MaxPooling2D()]); x = Input(S); return Model(x, gap(conv(2)(s(x))))
@case
def four_deep():
    s = Sequential([block(), L.Activation("relu")]); x = Input(S); f = Model(x, conv(3)(s(x))); return Sequential([f, Sequential([block(n=3), L.Flatten()]), L.Dense(2)])
@case
def nested_twice():
    b = block(n=3); x = Input(S); return Model(x, gap(b(b(x))))
@case
def nested_twice_own_output():
    b = block(n=3); x = Input(S); y = b(x); return Model(x, [gap(y), gap(b(y))])
@case
def nested_two_inputs_two_outputs():
    a, b = Input(S), Input(S); m = Model([a, b], [conv(3)(L.Add()([a, b])), L.Subtract()([a, b])])
    p, q = Input(S), Input(S); u, v = m([q, p]); return Model([p, q], [gap(L.Concatenate()([v, u])), u])
@case
def nested_outputs_order():
    a = Input(S); m = Model(a, [conv(3)(a), conv(3)(a), a]); p = Input(S); u, v, w = m(p); return Model(p, [w, v, L.Subtract()([u, v])])
@case
def nested_second_output_only():
    a = Input(S); m = Model(a, [conv(3)(a), conv(4)(a)]); p = Input(S); u, v = m(p); return Model(p, gap(v))
@case
def nested_siamese_bn():
    m = block(); a, b = Input(S), Input(S); return Model([a, b], L.Concatenate()([m(b), m(a)]))
@case
def nested_siamese_subtract():
    m = block(); a, b = Input(S), Input(S); return Model([a, b], L.Subtract()([m(b), m(a)]))
@case
def nested_sequential_called_twice():
    m = Sequential([conv(3, input_shape=S), L.BatchNormalization()]); x = Input(S); y = m(x); return Model(x, [m(y), y])
@case
def nested_sequential_deferred_called_twice():
    m = Sequential([conv(3), L.BatchNormalization()]); x = Input(S); y = m(x); return Model(x, [m(y), y])
@case
def nested_deferred_in_deferred():
    m = Sequential([Sequential([conv(3), L.BatchNormalization()]), L.Flatten(), L.Dense(2)]); x = Input(S); return Model(x, m(x))
@case
def nested_deferred_two_models():
    s = Sequential([conv(3), L.ReLU()]); x = Input(S); y = s(x); m = Model(x, gap(y)); z = Input(S); return Model(z, L.Dense(2)(m(z)))
@case
def nested_frozen():
    b = block(); b.trainable = False; x = Input(S); return Model(x, gap(b(x, training=False)))
@case
def nested_frozen_halves():
    b = block(n=3, frozen=("c0", "b1")); x = Input(S); return Model(x, gap(b(x)))
@case
def nested_frozen_first():
    b = block(n=3, frozen=("c0", "b0")); x = Input(S); return Model(x, gap(b(x)))
@case
def nested_frozen_last():
    b = block(n=3, frozen=("c1", "b1")); x = Input(S); return Model(x, gap(b(x)))
@case
def nested_frozen_outer():
    b = block(n=3, frozen=("c1",)); x = Input(S); m = Model(x, conv(3)(b(conv(3)(x)))); b.trainable = False; m.trainable = True; b.layers[1].trainable = True; z = Input(S); return Model(z, gap(m(z)))
@case
def nested_set_after():
    b = block(n=3); x = Input(S); m = Model(x, gap(b(x)))
    for l in b.layers[:-2]: l.trainable = False
    m.compile("sgd", "mse"); return m
@case
def sequential_partly_frozen_first():
    b = Sequential([conv(3, input_shape=S), conv(3), conv(3)]); b.layers[1].trainable = False; return Sequential([b, L.Flatten(), L.Dense(2)])
@case
def sequential_nested_frozen_twice():
    def inner(f): return Sequential([conv(3, input_shape=S, trainable=not f), conv(3, trainable=f)])
    return Sequential([Sequential([inner(True), inner(False)]), L.GlobalAveragePooling2D()])
@case
def renamed_layers():
    b = block()
    for l in b.layers: l._name = l.name + "_x"
    x = Input(S, name="photo"); return Model(x, gap(b(x)), name="my_model")
@case
def names_with_slashes():
    x = Input(S, name="in/put"); y = L.Conv2D(4, 3, name="a/b/c")(x); y = L.BatchNormalization(name="a/b/bn")(y); return Model(x, L.Activation("relu", name="a/relu")(y))
@case
def nested_slashes():
    x = Input(S); y = conv(3, name="a/c1")(x); y = conv(3, name="b/c1")(y); b = Model(x, L.BatchNormalization(name="b/bn")(y), name="inner"); z = Input(S); return Model(z, gap(b(z)))
@case
def nested_slashes_frozen():
    x = Input(S); y = conv(3, name="a/c1", trainable=False)(x); y = conv(3, name="b/c1")(y); b = Model(x, L.BatchNormalization(name="b/bn")(y), name="inner"); z = Input(S); return Model(z, gap(b(z)))
@case
def odd_names():
    x = Input(S, name="0 input.jpg"); y = L.Conv2D(4, 3, name="conv-1 (a)")(x); return Model(x, L.ReLU(name="kernel:0")(y))
@case
def same_named_nested():
    def inner(n):
        x = Input(S); return Model(x, L.BatchNormalization(name="bn")(L.Conv2D(3, 3, padding="same", name="c")(x)), name=n)
    z = Input(S); return Model(z, gap(inner("m2")(inner("m1")(z))))
@case
def reverse_named():
    x = Input(S); y = L.Conv2D(3, 3, name="conv2d_9")(x); y = L.Conv2D(3, 3, name="conv2d_2")(y); return Model(x, L.Conv2D(3, 3, name="conv2d_10")(y))
@case
def nested_reverse_named():
    x = Input(S); y = L.Conv2D(3, 3, name="conv2d_9")(x); y = L.Conv2D(3, 3, name="conv2d_2", trainable=False)(y); m = Model(x, L.Conv2D(3, 3, name="conv2d_10")(y)); z = Input(S); return Model(z, m(z))
@case
def multi_in_out():
    a, b = Input(S, name="z"), Input((5,), name="a"); y = L.Concatenate()([gap(conv()(a)), L.Dense(4)(b)]); return Model([a, b], [L.Dense(3, name="q")(y), L.Dense(2, name="p")(y)])
@case
def output_is_input():
    a = Input(S); return Model(a, [a, gap(conv()(a))])
@case
def outputs_repeated():
    a = Input(S); y = gap(conv()(a)); return Model(a, [y, L.Dense(2)(y), y])
@case
def eleven_outputs():
    a = Input(S); y = gap(conv()(a)); return Model(a, [L.Dense(2)(y) for _ in range(12)])
@case
def list_of_one():
    a = Input(S); return Model([a], [gap(conv()(a))])
@case
def dict_inputs():
    a, b = Input(S, name="right"), Input(S, name="left"); return Model({"right": a, "left": b}, gap(L.Subtract()([conv(3)(a), b]))), dict(named=True)
@case
def dict_inputs_other_keys():
    a, b = Input(S, name="x1"), Input(S, name="x2"); return Model({"r": a, "l": b}, gap(L.Subtract()([conv(3)(a), b]))), dict(named=True)
@case
def dict_outputs():
    a = Input(S); y = gap(conv()(a)); return Model(a, {"b": L.Dense(2)(y), "a": L.Dense(3)(y)})
@case
def dict_nested():
    a, b = Input(S, name="right"), Input(S, name="left"); m = Model({"right": a, "left": b}, gap(L.Subtract()([conv(3)(a), b]))); p, q = Input(S), Input(S); return Model([p, q], m({"left": p, "right": q}))
@case
def dict_out_nested():
    a = Input(S); y = gap(conv()(a)); m = Model(a, {"b": L.Dense(2)(y), "a": L.Dense(3)(y)}); p = Input(S); o = m(p); return Model(p, [o["a"], o["b"]])
@case
def nested_list_inputs():
    a, b, c = Input(S), Input(S), Input(S); return Model([a, [b, c]], gap(L.Subtract()([conv(3)(a), L.Add()([b, conv(3)(c)])]))), dict(structure=lambda x: [x[0], [x[1], x[2]]])
@case
def truncated():
    b = block(); return Model(b.input, b.layers[-2].output)
@case
def truncated_nested():
    b = block(); m = Model(b.input, b.layers[-2].output); x = Input(S); return Model(x, gap(m(x)))
@case
def truncated_of_nested():
    b = block(); x = Input(S); m = Model(x, L.Dense(2)(gap(b(x)))); return Model(m.input, m.layers[-2].output)
@case
def layers_rewired():
    b = block(); x = Input(S); y = x
    for l in b.layers[1:]: y = l(y)
    return Model(x, gap(y))
@case
def layers_rewired_both():
    b = block(); y = b.layers[1](b.layers[1].output if False else b.input); return Model(b.input, [gap(b.output), gap(y)])
@case
def extended():
    b = block(); y = L.Dense(3, activation="softmax", name="head")(gap(b.output)); return Model(b.input, y)
@case
def extended_of_sequential():
    b = Sequential([conv(3, input_shape=S), L.ReLU(), L.BatchNormalization()]); return Model(b.input, L.Dense(2)(gap(b.output)))
@case
def extended_inputs_swapped():
    a, b = Input(S, name="a"), Input(S, name="b"); y = L.Subtract()([conv(3)(a), b]); return Model([b, a], y)
@case
def sequential_popped():
    m = Sequential([conv(3, input_shape=S), L.ReLU(), L.Flatten(), L.Dense(5)]); m.pop(); m.add(L.Dense(2)); return m
@case
def sequential_of_layers_of_model():
    b = block(); return Sequential([L.InputLayer(input_shape=S)] + b.layers[1:] + [L.Flatten()])
@case
def sequential_of_all_layers():
    m = Sequential()
    for l in block().layers: m.add(l)
    m.add(L.Flatten()); m.add(L.Dense(2)); return m
@case
def shared_layer_thrice():
    c, b = conv(3), L.BatchNormalization(); x = Input(S); return Model(x, [b(c(b(c(x)))), c(x)])
@case
def shared_layer_order():
    c = conv(3); a, b = Input(S), Input(S); u = c(b); v = c(a); return Model([a, b], L.Subtract()([u, v]))
@case
def shared_in_nested():
    c = conv(3); x = Input(S); m = Model(x, L.ReLU()(c(x))); z = Input(S); return Model(z, L.Subtract()([m(z), c(z)]))
@case
def shared_between_nested():
    c = conv(3); x = Input(S); m = Model(x, L.ReLU()(c(x))); y = Input(S); n = Model(y, L.ELU()(c(y))); z = Input(S); return Model(z, L.Subtract()([m(z), n(z)]))
@case
def residual():
    x = Input(S); y = conv(3, use_bias=False)(x); y = L.BatchNormalization()(y); y = L.ReLU()(y); y = L.add([x, y]); return Model(x, gap(y))
@case
def unet():
    x = Input((8, 8, 3)); a = conv(4, activation="relu")(x); b = conv(6, activation="relu")(L.MaxPooling2D()(a)); c = L.Conv2DTranspose(4, 2, strides=2, padding="same")(b); d = L.concatenate([a, c], axis=3); return Model(x, L.Conv2D(1, 1, activation="sigmoid")(d))
@case
def transposed_padded():
    x = Input((5, 6, 3)); return Model(x, L.ReLU()(L.Conv2DTranspose(4, (4, 3), strides=(2, 3), padding="same", output_padding=1)(x)))
@case
def transposed_padded_sequential(): return Sequential([L.InputLayer(input_shape=(5, 6, 3)) if ops is None else Input((5, 6, 3)), L.Conv2DTranspose(4, 3, strides=2, output_padding=1), L.ReLU(), L.Conv2D(2, 3)])
@case
def training_true(): x = Input(S); y = L.Dropout(.0)(conv(3)(x), training=True); return Model(x, gap(y))
@case
def training_false_bn(): x = Input(S); y = L.BatchNormalization()(conv(3)(x), training=False); return Model(x, gap(y))
@case
def training_true_bn(): x = Input(S); y = L.BatchNormalization()(conv(3)(x), training=True); return Model(x, gap(y))
@case
def custom_model():
    class MyModel(Model):
        def train_step(self, data): return {}
    x = Input(S); return MyModel(x, gap(conv(3)(x)))
@case
def custom_model_nested():
    class MyModel(Model):
        def train_step(self, data): return {}
    x = Input(S); m = MyModel(x, conv(3)(x)); z = Input(S); return Model(z, gap(m(z)))
@case
def custom_sequential():
    class MySeq(Sequential): pass
    return MySeq([conv(3, input_shape=S), L.Flatten(), L.Dense(2)])
@case
def wide_and_deep():
    x = Input((6,)); y = L.Dense(5, activation="selu")(x); return Model(x, L.Dense(1)(L.concatenate([x, y])))

# --- first layers
@case
def first_input_named(): return Sequential([L.InputLayer(input_shape=S, name="photo"), conv(3), L.Flatten(), L.Dense(2)])
@case
def first_batch_input_shape(): return Sequential([conv(3, batch_input_shape=(None,) + S), L.Flatten(), L.Dense(2)])
@case
def first_fixed_batch(): return Sequential([conv(3, batch_input_shape=(2,) + S), L.Flatten(), L.Dense(2)])
@case
def first_batch_size(): return Sequential([conv(3, input_shape=S, batch_size=2), L.Flatten(), L.Dense(2)])
@case
def first_free(): return Sequential([conv(3, input_shape=(None, None, 3)), L.GlobalMaxPooling2D(), L.Dense(2)])
@case
def first_dense_input_dim(): return Sequential([L.Dense(4, input_dim=7), L.LeakyReLU(), L.Dense(2)])
@case
def first_dense_input_shape(): return Sequential([L.Dense(4, input_shape=(7,)), L.BatchNormalization(), L.Dropout(.3), L.Dense(2)])
@case
def first_flatten(): return Sequential([L.Flatten(input_shape=(9, 10)), L.Dense(2, activation="softmax")])
@case
def first_reshape(): return Sequential([L.Reshape((9, 10, 1), input_shape=(90,)), conv(3), L.Flatten(), L.Dense(2)])
@case
def first_reshape_square(): return Sequential([L.Reshape((9, 10, 1), input_shape=(9, 10)), conv(3), L.Flatten(), L.Dense(2)])
@case
def first_zeropad(): return Sequential([L.ZeroPadding2D((1, 2), input_shape=S), conv(3), L.Flatten()])
@case
def first_cropping(): return Sequential([L.Cropping2D(((1, 2), (0, 3)), input_shape=S), conv(3), L.Flatten()])
@case
def first_dropout(): return Sequential([L.Dropout(.2, input_shape=(7,)), L.Dense(2)])
@case
def first_activation(): return Sequential([L.Activation("relu", input_shape=S), conv(2), L.Flatten()])
@case
def first_embedding(): return Sequential([L.Embedding(9, 4, input_length=6), L.Flatten(), L.Dense(2)]), dict(xs=[ints(9, 2, 6)])
@case
def first_conv1d(): return Sequential([L.Conv1D(4, 3, input_shape=(12, 3)), L.MaxPooling1D(), L.Flatten(), L.Dense(2)])
@case
def first_conv3d(): return Sequential([L.Conv3D(4, 2, input_shape=(5, 6, 7, 1)), L.MaxPooling3D(), L.Flatten(), L.Dense(2)])
@case
def first_lambda(): return Sequential([L.Lambda(lambda x: x / 127.5 - 1, input_shape=S), conv(2), L.Flatten()])
@case
def first_uint8(): return Sequential([P("Rescaling")(1/255., input_shape=S, dtype="float32"), conv(2), L.Flatten()])
@case
def first_two_inputlayers(): return Sequential([Sequential([L.InputLayer(input_shape=S), conv(2)]), L.Flatten()])
@case
def deferred_built():
    m = Sequential([conv(3), L.MaxPooling2D(), L.Flatten(), L.Dense(2)]); m.build((None,) + S); return m, dict(like=[(2,) + S])
@case
def deferred_called():
    m = Sequential([conv(3), L.MaxPooling2D(), L.Flatten(), L.Dense(2)]); m(np.zeros((2,) + S, "float32")); return m, dict(like=[(2,) + S])
@case
def deferred_fitted():
    m = Sequential([conv(3), L.BatchNormalization(), L.MaxPooling2D(), L.Flatten(), L.Dense(2)]); m.compile("adam", "mse"); m.fit(np.zeros((4,) + S, "float32"), np.zeros((4, 2), "float32"), epochs=1, verbose=0); return m, dict(like=[(2,) + S])
@case
def deferred_nested_fitted():
    m = Sequential([Sequential([conv(3), L.ReLU()]), L.Flatten(), L.Dense(2)]); m.compile("adam", "mse"); m.fit(np.zeros((4,) + S, "float32"), np.zeros((4, 2), "float32"), epochs=1, verbose=0); return m, dict(like=[(2,) + S])
@case
def deferred_functional_first():
    m = Sequential([block(), L.Flatten(), L.Dense(2)]); m.compile("adam", "mse"); m.fit(np.zeros((4,) + S, "float32"), np.zeros((4, 2), "float32"), epochs=1, verbose=0); return m
@case
def input_uint8():
    x = Input(S, dtype="uint8"); return Model(x, gap(conv(3)(P("Rescaling")(1/255.)(x)))), dict(xs=[ints(255, 2, *S, dtype="uint8")])
@case
def input_uint8_conv():
    x = Input(S, dtype="uint8"); return Model(x, gap(conv(3)(x))), dict(xs=[ints(255, 2, *S, dtype="uint8")])
@case
def input_int32_pool():
    x = Input(S, dtype="int32"); return Model(x, gap(L.MaxPooling2D()(x))), dict(xs=[ints(255, 2, *S)])
@case
def input_uint8_resizing():
    x = Input(S, dtype="uint8"); return Model(x, gap(conv(3)(P("Resizing")(6, 7)(x)))), dict(xs=[ints(255, 2, *S, dtype="uint8")])
@case
def input_uint8_resizing_out():
    x = Input(S, dtype="uint8"); return Model(x, P("Resizing")(6, 7)(x)), dict(xs=[ints(255, 2, *S, dtype="uint8")])
@case
def input_uint8_flatten_dense():
    x = Input(S, dtype="uint8"); return Model(x, L.Dense(3)(L.Flatten()(x))), dict(xs=[ints(255, 2, *S, dtype="uint8")])
@case
def input_float16():
    x = Input(S, dtype="float16"); return Model(x, gap(conv(3)(x))), dict(xs=[np.random.RandomState(2).normal(0, 1, (2,) + S).astype("float16")])
@case
def input_bool():
    x = Input(S, dtype="bool"); return Model(x, gap(conv(3)(P("Rescaling")(1.)(x)))), dict(xs=[ints(2, 2, *S, dtype="bool")])
@case
def input_none_channels():
    x = Input((None, None, 1)); y = L.concatenate([x, x, x]); return Model(x, gap(conv(3)(y)))

# --- precision
def policy(p):
    mp = keras.mixed_precision if hasattr(keras, "mixed_precision") else tf.keras.mixed_precision
    if hasattr(mp, "set_global_policy"): mp.set_global_policy(p)
    elif hasattr(mp, "set_dtype_policy"): mp.set_dtype_policy(p)
    else: mp.experimental.set_policy(p)
def under(p, build):
    def f():
        policy(p)
        try: return build()
        finally: policy("float32")
    return f
def mixed():
    x = Input(S); y = L.MaxPooling2D()(L.ReLU()(L.BatchNormalization()(conv(3)(x)))); y = L.Dense(3)(L.Flatten()(y)); return Model(x, L.Activation("softmax", dtype="float32")(y))
put("mixed_float16_net", under("mixed_float16", mixed)); put("mixed_bfloat16_net", under("mixed_bfloat16", mixed))
put("mixed_float16_nested", under("mixed_float16", lambda: (lambda b, x: Model(x, L.Dense(2, dtype="float32")(gap(b(x)))))(block(), Input(S))))
put("mixed_float16_norms", under("mixed_float16", lambda: (lambda x: Model(x, L.Activation("linear", dtype="float32")(L.LayerNormalization()(L.GroupNormalization(2)(conv(4)(x))))))(Input(S))))
put("mixed_float16_ops", under("mixed_float16", lambda: (lambda x: Model(x, L.Activation("linear", dtype="float32")(conv(3)(x) * 2. + x)))(Input(S))))
put("mixed_float16_seq", under("mixed_float16", lambda: Sequential([P("Rescaling")(1/255., input_shape=S), conv(3), L.Flatten(), L.Dense(2), L.Activation("softmax", dtype="float32")])))
put("float16_layer", lambda: (lambda x: Model(x, L.Dense(2)(gap(L.Conv2D(3, 3, dtype="float16")(x)))))(Input(S)))
put("float64_layer", lambda: (lambda x: Model(x, L.Dense(2, dtype="float64")(gap(conv(3)(x)))))(Input(S)))
@case
def floatx_float16():
    K.set_floatx("float16") if hasattr(K, "set_floatx") else keras.config.set_floatx("float16")
    try: x = Input(S); return Model(x, gap(conv(3)(x)))
    finally: K.set_floatx("float32")

# --- preprocessing
@case(rand=False)
def normalization_adapted():
    n = P("Normalization")(); n.adapt(np.random.RandomState(3).normal(5, 3, (20,) + S).astype("float32")); x = Input(S); return Model(x, gap(conv()(n(x))))
@case(rand=False)
def normalization_adapted_none():
    n = P("Normalization")(axis=None); n.adapt(np.random.RandomState(3).normal(5, 3, (20,) + S).astype("float32")); x = Input(S); return Model(x, gap(conv()(n(x))))
@case(rand=False)
def normalization_adapted_axes():
    n = P("Normalization")(axis=(1, 3)); n.adapt(np.random.RandomState(3).normal(5, 3, (20,) + S).astype("float32")); x = Input(S); return Model(x, gap(conv()(n(x))))
@case(rand=False)
def normalization_adapted_invert():
    n = P("Normalization")(invert=True); n.adapt(np.random.RandomState(3).normal(5, 3, (20,) + S).astype("float32")); x = Input(S); return Model(x, gap(conv()(n(x))))
@case(rand=False)
def normalization_first():
    n = P("Normalization")(input_shape=(7,), axis=-1); n.adapt(np.random.RandomState(3).normal(5, 3, (20, 7)).astype("float32")); return Sequential([n, L.Dense(2)])
@case(rand=False)
def normalization_deferred_first():
    n = P("Normalization")(); n.adapt(np.random.RandomState(3).normal(5, 3, (20, 7)).astype("float32")); m = Sequential([n, L.Dense(2)]); m(np.zeros((2, 7), "float32")); return m, dict(like=[(2, 7)], rand=False)
@case
def augmentation_seq():
    a = Sequential([P("RandomFlip")("horizontal_and_vertical"), P("RandomRotation")(.2), P("RandomZoom")(.1), P("RandomContrast")(.1), P("RandomTranslation")(.1, .1)]); x = Input(S); return Model(x, gap(conv()(P("Rescaling")(1/255.)(a(x)))))
@case
def augmentation_first_seq(): return Sequential([Sequential([P("RandomFlip")("horizontal", input_shape=S), P("RandomRotation")(.2)]), P("Rescaling")(1/255.), conv(3), L.Flatten(), L.Dense(2)])
@case
def resize_and_rescale(): return Sequential([Sequential([P("Resizing")(8, 8), P("Rescaling")(1/255.)]), conv(3, input_shape=S), L.Flatten(), L.Dense(2)]), dict(like=[(2,) + S])
for n in "vgg16 resnet50 resnet_v2 mobilenet mobilenet_v2 mobilenet_v3 efficientnet densenet inception_v3 xception nasnet imagenet_utils convnext".split():
    def f(n=n):
        x = Input(S); y = getattr(keras.applications, n).preprocess_input(x); return Model(x, gap(conv(3)(y)))
    put("preprocess_" + n, f, scale=100)
for mode in ("caffe", "tf", "torch"):
    def f(mode=mode):
        x = Input(S); y = keras.applications.imagenet_utils.preprocess_input(x, mode=mode); return Model(x, gap(conv(3)(y)))
    put("preprocess_mode_" + mode, f, scale=100)

# --- recorded operations
def op(name, f, shape=S, **kw):
    def build():
        x = Input(shape); return Model(x, f(x))
    put("op_" + name, build, **kw)
for n, f in [("add", lambda x: x + 1.5), ("radd", lambda x: 1.5 + x), ("sub", lambda x: x - 2), ("rsub", lambda x: 2 - x), ("mul", lambda x: x * .5), ("rmul", lambda x: 3 * x), ("div", lambda x: x / 255.), ("rdiv", lambda x: 1. / (x * x + 1.)),
             ("pow", lambda x: x ** 2), ("rpow", lambda x: 2. ** x), ("neg", lambda x: -x), ("abs", lambda x: abs(x)), ("floordiv", lambda x: x // .3), ("mod", lambda x: x % .7), ("self", lambda x: x * x + x), ("chain", lambda x: (x - .5) * 2. / .3 + x),
             ("list", lambda x: x * [1., 2., 3.]), ("array", lambda x: x - np.array([1., 2., 3.], "float32")), ("array4", lambda x: x * np.arange(30, dtype="float32").reshape(1, 1, 10, 3)),
             ("bgr", lambda x: x[..., ::-1]), ("slice", lambda x: x[:, 1:-1, ::2, :]), ("index", lambda x: x[:, 2]), ("index_last", lambda x: x[..., 0]), ("newaxis", lambda x: x[:, None]), ("newaxis_last", lambda x: x[..., 0][..., None] if tf is None else x[..., 0][..., tf.newaxis]), ("mixed_key", lambda x: x[:, -1, 2:, ::-1]), ("negstep", lambda x: x[:, ::-1]),
             ("index_neg", lambda x: x[:, :, -1]), ("one_channel", lambda x: x[:, :, :, 0:1])]: op(n, f)
if tf is not None:
    for n in "relu relu6 elu selu sigmoid tanh softplus softsign swish silu gelu softmax log_softmax leaky_relu crelu".split(): op("nn_" + n, lambda x, n=n: getattr(tf.nn, n)(x))
    for n in "abs exp square sqrt sign floor ceil round sin cos tanh sigmoid negative softplus log1p erf reciprocal rsqrt expm1 atan".split(): op("math_" + n, lambda x, n=n: getattr(tf.math, n)(x * x + .5 if n in ("sqrt", "log1p", "reciprocal", "rsqrt") else x))
    for n in "reduce_mean reduce_sum reduce_max reduce_min reduce_prod reduce_std reduce_variance reduce_logsumexp argmax argmin cumsum reduce_euclidean_norm".split():
        g = lambda n: getattr(tf, n) if hasattr(tf, n) else getattr(tf.math, n)
        op("red_%s_axis" % n, lambda x, n=n: g(n)(x, axis=1)); op("red_%s_axes" % n, lambda x, n=n: g(n)(x, axis=[1, 2], keepdims=True)); op("red_%s_pos" % n, lambda x, n=n: g(n)(x, [1, 2])); op("red_%s_last" % n, lambda x, n=n: g(n)(x, -1))
    for n, f in [
        ("concat", lambda x: tf.concat([x, x * 2.], axis=-1)), ("concat_pos", lambda x: tf.concat([x, x], 1)), ("concat3", lambda x: tf.concat([x, tf.nn.relu(x), x], 3)), ("stack", lambda x: tf.stack([x, x * 2.], axis=1)), ("stack_last", lambda x: tf.stack([x, x], -1)), ("unstack", lambda x: tf.unstack(x, axis=-1)[1]), ("split", lambda x: tf.split(x, 3, axis=-1)[1]), ("split_sizes", lambda x: tf.concat(tf.split(x, [1, 2], axis=3)[::-1], 3)), ("split_all", lambda x: tf.split(x, 2, 2)),
        ("pad", lambda x: tf.pad(x, [[0, 0], [1, 2], [3, 0], [0, 0]])), ("pad_reflect", lambda x: tf.pad(x, [[0, 0], [1, 2], [3, 0], [0, 0]], mode="REFLECT")), ("pad_symmetric", lambda x: tf.pad(x, [[0, 0], [1, 2], [3, 0], [0, 0]], "SYMMETRIC")), ("pad_value", lambda x: tf.pad(x, [[0, 0], [1, 2], [3, 0], [0, 0]], constant_values=1.5)), ("pad_array", lambda x: tf.pad(x, tf.constant([[0, 0], [1, 2], [3, 0], [0, 0]]))),
        ("resize", lambda x: tf.image.resize(x, (13, 7))), ("resize_pos", lambda x: tf.image.resize(x, [5, 20], "nearest")), ("resize_bicubic", lambda x: tf.image.resize(x, (13, 7), method="bicubic")), ("resize_antialias", lambda x: tf.image.resize(x, (5, 6), antialias=True)), ("resize_aspect", lambda x: tf.image.resize(x, (5, 6), preserve_aspect_ratio=True)), ("resize_area", lambda x: tf.image.resize(x, (5, 6), "area")), ("resize_lanczos", lambda x: tf.image.resize(x, (15, 16), "lanczos3")), ("resize_v1", lambda x: tf.compat.v1.image.resize_bilinear(x, (13, 7), align_corners=True)), ("resize_v1_plain", lambda x: tf.compat.v1.image.resize_bilinear(x, (13, 7))), ("resize_v1_nearest", lambda x: tf.compat.v1.image.resize_nearest_neighbor(x, (13, 7))), ("resize_images_v1", lambda x: tf.compat.v1.image.resize_images(x, (13, 7))),
        ("K_resize", lambda x: K.resize_images(x, 2, 3, "channels_last", interpolation="bilinear")), ("K_resize_nearest", lambda x: K.resize_images(x, 2, 3, "channels_last")),
        ("transpose", lambda x: tf.transpose(x, [0, 3, 1, 2])), ("transpose_kw", lambda x: tf.transpose(x, perm=[0, 2, 1, 3])), ("reshape", lambda x: tf.reshape(x, [-1, 270])), ("reshape2", lambda x: tf.reshape(x, (-1, 90, 3))), ("reshape_shape", lambda x: tf.reshape(x, (tf.shape(x)[0], 90, 3))), ("K_reshape", lambda x: K.reshape(x, (-1, 90, 3))), ("cast", lambda x: tf.cast(tf.cast(x * 10., tf.int32), tf.float32)), ("cast_bool", lambda x: tf.cast(x > 0., "float32")), ("where", lambda x: tf.where(x > 0., x, x * .1)), ("where_eq", lambda x: tf.where(tf.equal(x, x), x * 2., x)), ("where_const", lambda x: tf.where(x > .2, x, 0.)), ("greater", lambda x: tf.cast(tf.greater(x, .5), tf.float32) * x), ("less", lambda x: tf.cast(tf.math.less_equal(x, .5), tf.float32) * x), ("logical", lambda x: tf.cast(tf.logical_and(x > -.5, x < .5), tf.float32)), ("logical_not", lambda x: tf.cast(tf.logical_not(x > 0.), tf.float32)),
        ("clip", lambda x: tf.clip_by_value(x, -.5, .7)), ("minimum", lambda x: tf.minimum(x, .3)), ("maximum", lambda x: tf.maximum(0.1, x)), ("squared_difference", lambda x: tf.math.squared_difference(x, .5)), ("l2", lambda x: tf.nn.l2_normalize(x, axis=-1)), ("l2_axes", lambda x: tf.math.l2_normalize(x, [1, 2], epsilon=.1)), ("K_l2", lambda x: K.l2_normalize(x, axis=-1)), ("expand", lambda x: tf.expand_dims(x, 1)), ("squeeze", lambda x: tf.squeeze(x[:, 0:1], axis=1)), ("squeeze_pos", lambda x: tf.squeeze(x[:, :, :, 0:1], -1)), ("squeeze_list", lambda x: tf.squeeze(x[:, 0:1, :, 0:1], [1, 3])), ("tile", lambda x: tf.tile(x, [1, 1, 2, 1])), ("repeat", lambda x: tf.repeat(x, 2, axis=1)), ("reverse", lambda x: tf.reverse(x, axis=[-1])), ("flip_lr", lambda x: tf.image.flip_left_right(x)), ("roll", lambda x: tf.roll(x, 1, 2)), ("gather", lambda x: tf.gather(x, [2, 0], axis=-1)), ("one_hot", lambda x: tf.one_hot(tf.argmax(x, -1), 3)), ("top_k", lambda x: tf.math.top_k(x, 2)[0]),
        ("matmul", lambda x: tf.matmul(x, x, transpose_b=True)), ("matmul_op", lambda x: tf.matmul(tf.transpose(x, [0, 1, 3, 2]), x)), ("einsum", lambda x: tf.einsum("bhwc,bhwd->bcd", x, x)), ("tensordot", lambda x: tf.tensordot(x, np.ones((3, 2), "float32"), 1)), ("bias_add", lambda x: tf.nn.bias_add(x, [1., 2., 3.])), ("batch_norm", lambda x: tf.nn.batch_normalization(x, .1, .2, .3, .4, .001)), ("avg_pool", lambda x: tf.nn.avg_pool2d(x, 2, 2, "SAME")), ("max_pool", lambda x: tf.nn.max_pool2d(x, (2, 3), 2, padding="VALID")), ("pool_v1", lambda x: tf.nn.max_pool(x, [1, 2, 2, 1], [1, 2, 2, 1], "SAME")), ("conv2d", lambda x: tf.nn.conv2d(x, np.ones((2, 2, 3, 4), "float32"), 1, "SAME")), ("depth_to_space", lambda x: tf.nn.depth_to_space(tf.concat([x, x, x, x], -1), 2)), ("space_to_depth", lambda x: tf.nn.space_to_depth(x[:, :8], 2)), ("add_n", lambda x: tf.add_n([x, x * 2., x])), ("identity", lambda x: tf.identity(x)), ("stop_gradient", lambda x: tf.stop_gradient(x)), ("dropout", lambda x: tf.nn.dropout(x, 0.)), ("zeros_like", lambda x: tf.zeros_like(x) + x), ("ones_like", lambda x: tf.ones_like(x) * x), ("standardize", lambda x: tf.image.per_image_standardization(x)), ("gray", lambda x: tf.image.rgb_to_grayscale(x)), ("central_crop", lambda x: tf.image.central_crop(x, .5)), ("crop_box", lambda x: tf.image.crop_to_bounding_box(x, 1, 2, 3, 4)), ("resize_pad", lambda x: tf.image.resize_with_pad(x, 12, 8)), ("K_mean", lambda x: K.mean(x, axis=[1, 2])), ("K_concat", lambda x: K.concatenate([x, x], axis=-1)), ("K_sum", lambda x: K.sum(x, axis=1, keepdims=True)), ("K_relu", lambda x: K.relu(x, alpha=.1, max_value=1.)), ("act_swish", lambda x: keras.activations.swish(x)), ("act_relu", lambda x: keras.activations.relu(x, alpha=.1, max_value=.6, threshold=.05)), ("act_softmax", lambda x: keras.activations.softmax(x, axis=1)), ("act_hard_sigmoid", lambda x: keras.activations.hard_sigmoid(x)), ("act_gelu", lambda x: keras.activations.gelu(x, approximate=True)), ("act_elu", lambda x: keras.activations.elu(x, alpha=.3)), ("hswish", lambda x: x * tf.nn.relu6(x + 3.) / 6.), ("mish", lambda x: x * tf.math.tanh(tf.math.softplus(x))), ("leaky_alpha", lambda x: tf.nn.leaky_relu(x, alpha=.3)), ("softmax_axis", lambda x: tf.nn.softmax(x, axis=1)), ("shape_mul", lambda x: tf.cast(tf.shape(x)[1], tf.float32) * x), ("moments", lambda x: tf.nn.moments(x, [1, 2])[1]), ("pow_fn", lambda x: tf.pow(x, 3.)), ("divide", lambda x: tf.divide(x, 3.)), ("multiply", lambda x: tf.multiply(.5, x)), ("add_fn", lambda x: tf.add(x, x)), ("subtract", lambda x: tf.subtract(1., x)), ("divide_no_nan", lambda x: tf.math.divide_no_nan(x, tf.nn.relu(x))), ("global_avg", lambda x: tf.reduce_mean(x, axis=[1, 2], name="gap")), ("normalize_sum", lambda x: x / tf.reduce_sum(tf.abs(x), axis=-1, keepdims=True)), ("se", lambda x: x * tf.sigmoid(tf.reduce_mean(x, [1, 2], keepdims=True))), ("lrn", lambda x: tf.nn.local_response_normalization(x)), ("lrn_options", lambda x: tf.nn.lrn(x, depth_radius=1, bias=2., alpha=.3, beta=.6)), ("eye_const", lambda x: x + tf.constant(2.)), ("const_array", lambda x: x * tf.constant([1., 2., 3.])), ("boolean_not", lambda x: tf.cast(~(x > 0.), tf.float32)), ("and_op", lambda x: tf.cast((x > -.5) & (x < .5), tf.float32)), ("saturate", lambda x: tf.saturate_cast(x * 100., tf.uint8)), ("range", lambda x: x + tf.range(3, dtype="float32")), ("scalar_mul", lambda x: tf.math.scalar_mul(2., x)), ("not_equal", lambda x: tf.cast(tf.not_equal(x, 0.), tf.float32)), ("xdivy", lambda x: tf.math.xdivy(x, 2.)), ("transpose_none", lambda x: tf.transpose(tf.reduce_mean(x, -1)[:2], [0, 2, 1])), ("shuffle", lambda x: tf.reshape(tf.transpose(tf.reshape(x, [-1, 9, 10, 1, 3]), [0, 1, 2, 4, 3]), [-1, 9, 10, 3])),
    ]: op("tf_" + n, f)
    op("two_inputs", lambda x: x, (4,))
    @case
    def op_euclidean():
        a, b = Input((5,)), Input((5,)); return Model([a, b], tf.sqrt(tf.reduce_sum(tf.square(a - b), axis=1, keepdims=True)))
    @case
    def op_reused():
        x = Input(S); y = x * 2.; z = y + x; return Model(x, [gap(z * y), z])
    @case
    def op_nested():
        a = Input(S); m = Model(a, tf.nn.relu(conv(3)(a) / 2.)); x = Input(S); return Model(x, gap(m(m(x)) + x))
    @case
    def op_on_nested_outputs():
        a = Input(S); m = Model(a, [conv(3)(a), conv(3)(a)]); x = Input(S); u, v = m(x); return Model(x, tf.concat([u - v, u], -1))
    @case
    def op_in_sequential():
        a = Input(S); m = Model(a, conv(3)(a / 255.)); return Sequential([m, L.Flatten(), L.Dense(2)])
    @case
    def op_uint8():
        x = Input(S, dtype="uint8"); y = tf.cast(x, tf.float32) / 255.; return Model(x, gap(conv(3)(y))), dict(xs=[ints(255, 2, *S, dtype="uint8")])
    @case
    def op_shared_layer_ops():
        c = conv(3); x = Input(S); return Model(x, c(x) - c(x * 2.))
    @case
    def op_positional_attention():
        x = Input((5, 6)); p = L.Embedding(5, 6)(tf.range(0, 5)); return Model(x, x + p)
if ops is not None:
    for n, f in [
        ("concat", lambda x: ops.concatenate([x, x * 2.], axis=-1)), ("stack", lambda x: ops.stack([x, x], axis=1)), ("mean", lambda x: ops.mean(x, axis=[1, 2])), ("mean_keep", lambda x: ops.mean(x, axis=(1, 2), keepdims=True)), ("max", lambda x: ops.max(x, axis=-1)), ("var", lambda x: ops.var(x, axis=1)), ("std", lambda x: ops.std(x, axis=1)), ("pad", lambda x: ops.pad(x, [[0, 0], [1, 2], [3, 0], [0, 0]])), ("pad_reflect", lambda x: ops.pad(x, [[0, 0], [1, 2], [3, 0], [0, 0]], mode="reflect")), ("pad_value", lambda x: ops.pad(x, [[0, 0], [1, 2], [3, 0], [0, 0]], constant_values=2.)), ("resize", lambda x: ops.image.resize(x, (13, 7))), ("resize_nearest", lambda x: ops.image.resize(x, (13, 7), interpolation="nearest")), ("resize_bicubic", lambda x: ops.image.resize(x, (13, 7), interpolation="bicubic")), ("resize_antialias", lambda x: ops.image.resize(x, (5, 6), antialias=True)), ("transpose", lambda x: ops.transpose(x, (0, 3, 1, 2))), ("reshape", lambda x: ops.reshape(x, (-1, 270))), ("cast", lambda x: ops.cast(ops.cast(x * 10, "int32"), "float32")), ("where", lambda x: ops.where(x > 0., x, x * .1)), ("logical", lambda x: ops.cast(ops.logical_and(x > -.5, x < .5), "float32")), ("clip", lambda x: ops.clip(x, -.5, .5)), ("min", lambda x: ops.minimum(x, .3)), ("expand", lambda x: ops.expand_dims(x, 1)), ("squeeze", lambda x: ops.squeeze(x[:, 0:1], axis=1)), ("tile", lambda x: ops.tile(x, (1, 1, 2, 1))), ("repeat", lambda x: ops.repeat(x, 2, axis=1)), ("flip", lambda x: ops.flip(x, axis=-1)), ("roll", lambda x: ops.roll(x, 1, axis=2)), ("take", lambda x: ops.take(x, [2, 0], axis=-1)), ("one_hot", lambda x: ops.one_hot(ops.argmax(x, axis=-1), 3)), ("matmul", lambda x: ops.matmul(x, ops.transpose(x, (0, 1, 3, 2)))), ("einsum", lambda x: ops.einsum("bhwc,bhwd->bcd", x, x)), ("split", lambda x: ops.split(x, 3, axis=-1)[1]), ("split_all", lambda x: ops.split(x, [1], axis=-1)), ("normalize", lambda x: ops.normalize(x, axis=-1)), ("softmax", lambda x: ops.softmax(x, axis=1)), ("relu", lambda x: ops.relu(x)), ("leaky", lambda x: ops.leaky_relu(x, .3)), ("gelu", lambda x: ops.gelu(x, approximate=False)), ("silu", lambda x: ops.silu(x)), ("hard_sigmoid", lambda x: ops.hard_sigmoid(x)), ("exp", lambda x: ops.exp(x)), ("square", lambda x: ops.square(x)), ("average_pool", lambda x: ops.average_pool(x, 2, 2, padding="same")), ("max_pool", lambda x: ops.max_pool(x, (2, 3), strides=2)), ("sum", lambda x: ops.sum(x, axis=-1)), ("prod", lambda x: ops.prod(x, axis=1)), ("cumsum", lambda x: ops.cumsum(x, axis=1)), ("argmax", lambda x: ops.argmax(x, axis=-1)), ("swapaxes", lambda x: ops.swapaxes(x, 1, 2)), ("moveaxis", lambda x: ops.moveaxis(x, 1, 2)), ("rsqrt", lambda x: ops.rsqrt(x * x + 1.)), ("logsumexp", lambda x: ops.logsumexp(x, axis=1)), ("sqrt", lambda x: ops.sqrt(x * x)), ("norm", lambda x: ops.norm(x, axis=-1)), ("erf", lambda x: ops.erf(x)), ("log", lambda x: ops.log(x * x + 1.)), ("zeros_like", lambda x: ops.zeros_like(x) + x), ("shape", lambda x: ops.reshape(x, (ops.shape(x)[0], -1))), ("gray", lambda x: ops.image.rgb_to_grayscale(x)), ("crop", lambda x: ops.image.crop_images(x, 1, 2, target_height=3, target_width=4)), ("act_relu", lambda x: keras.activations.relu(x, negative_slope=.1, max_value=.6, threshold=.05)), ("act_swish", lambda x: keras.activations.swish(x)), ("arctan", lambda x: ops.arctan(x)), ("floor", lambda x: ops.floor(x)), ("sign", lambda x: ops.sign(x)), ("batch_normalization", lambda x: ops.batch_normalization(x, ops.ones(3), ops.ones(3), axis=-1)),
    ]: op("k3_" + n, f)

# --- training
def fitted(m, outputs=2, **kw):
    n = m.output_shape[-1]; m.fit(np.random.RandomState(0).normal(0, 1, (4,) + S).astype("float32"), np.ones((4, n), "float32"), epochs=1, verbose=0); return m
def net(**kw):
    return Sequential([conv(3, input_shape=S, **kw), L.BatchNormalization(), L.ReLU(), L.Flatten(), L.Dense(2, activation="softmax")])
for o in ("sgd", "adam", "rmsprop", "adadelta", "nadam", "adamax", "adagrad"):
    def f(o=o): m = net(); m.compile(o, "categorical_crossentropy", metrics=["accuracy"]); return fitted(m)
    put("trained_" + o, f, rand=False)
@case(rand=False)
def trained_functional():
    x = Input(S); m = Model(x, L.Dense(2)(gap(block()(x)))); m.compile("adam", "mse", metrics=["mae"]); return fitted(m)
@case
def compiled_lists():
    a = Input(S); y = gap(conv()(a)); m = Model(a, [L.Dense(2, name="p")(y), L.Dense(1, activation="sigmoid", name="q")(y)]); m.compile("adam", {"p": "mse", "q": "binary_crossentropy"}, loss_weights={"p": 1., "q": .5}); return m
@case
def regularized():
    R, C = keras.regularizers, keras.constraints
    m = Sequential([conv(3, input_shape=S, kernel_regularizer=R.l2(.01), bias_regularizer=R.l1(.02), kernel_constraint=C.max_norm(2.)), L.BatchNormalization(beta_regularizer=R.l2(.1), gamma_constraint=C.non_neg()), L.Flatten(), L.Dense(2, kernel_regularizer=R.l1_l2(.1, .2), activity_regularizer=R.l2(.1), bias_constraint=C.unit_norm())]); return m
@case
def initialized():
    I = keras.initializers
    return Sequential([conv(3, input_shape=S, kernel_initializer=I.he_normal(), bias_initializer=I.Constant(.2)), L.Flatten(), L.Dense(2, kernel_initializer="orthogonal", bias_initializer=I.RandomUniform(-.1, .1))])
@case
def without_optimizer():
    m = net(); m.compile("adam", "mse"); return m, dict(save=lambda p: m.save(p, include_optimizer=False) if p.endswith("h5") else m.save(p))
@case
def saved_again():
    m = Sequential([block(n=3, frozen=("c0", "b1")), L.Flatten(), L.Dense(2)]); randomise(m); p = os.path.join(ROOT, "again.h5"); m.save(p); K.clear_session(); return keras.models.load_model(p), dict(rand=False)
@case
def saved_again_functional():
    x = Input(S); b = block(n=3, frozen=("c1", "b0")); m = Model(x, L.Dense(2)(gap(b(b(x))))); randomise(m); p = os.path.join(ROOT, "again.h5"); m.save(p); K.clear_session(); return keras.models.load_model(p), dict(rand=False)
@case
def saved_again_keras():
    x = Input(S); b = block(n=3, frozen=("c1", "b0")); m = Model(x, L.Dense(2)(gap(b(b(x))))); randomise(m); p = os.path.join(ROOT, "again.keras"); m.save(p); K.clear_session(); return keras.models.load_model(p), dict(rand=False)
@case
def cloned():
    x = Input(S); b = block(n=3, frozen=("c1", "b0")); m = Model(x, L.Dense(2)(gap(b(b(x))))); return keras.models.clone_model(m)
@case
def cloned_new_input():
    m = Sequential([conv(3, input_shape=S), L.ReLU(), L.GlobalMaxPooling2D(), L.Dense(2)]); return keras.models.clone_model(m, input_tensors=Input((None, None, 3)))
# --- channels first
def cf(f):
    def build():
        K.set_image_data_format("channels_first") if hasattr(K, "set_image_data_format") else keras.config.set_image_data_format("channels_first")
        try: return f()
        finally: K.set_image_data_format("channels_last")
    return build
F = (3, 9, 10)
for n, f in [("conv", lambda: Sequential([L.Conv2D(4, 3, strides=2, padding="same", input_shape=F), L.BatchNormalization(axis=1), L.ReLU(), L.Flatten(), L.Dense(2)])), ("bn", lambda: Sequential([L.BatchNormalization(axis=1, input_shape=F), L.ZeroPadding2D(((1, 2), (0, 3))), L.Flatten(), L.Dense(2)])),
             ("gap", lambda: Sequential([L.ReLU(input_shape=F), L.GlobalAveragePooling2D(), L.Dense(2)])), ("up", lambda: Sequential([L.UpSampling2D((2, 3), input_shape=F), L.Cropping2D(((1, 2), (0, 3))), L.GlobalMaxPooling2D()])), ("pool", lambda: Sequential([L.MaxPooling2D((2, 3), input_shape=F), L.AveragePooling2D(2, padding="same"), L.Flatten()])),
             ("dense", lambda: Sequential([L.Dense(4, input_shape=F), L.Flatten(), L.Dense(2)])), ("bn_last", lambda: Sequential([L.ReLU(input_shape=F), L.ZeroPadding2D(1), L.BatchNormalization(), L.GlobalAveragePooling2D()])), ("softmax", lambda: Sequential([L.ZeroPadding2D(1, input_shape=F), L.Softmax(), L.Flatten()])), ("prelu", lambda: Sequential([L.ZeroPadding2D(1, input_shape=F), L.PReLU(shared_axes=[2, 3]), L.Flatten()])),
             ("reshape", lambda: Sequential([L.ZeroPadding2D(1, input_shape=F), L.Reshape((-1, 12)), L.Flatten(), L.Dense(2)])), ("permute", lambda: Sequential([L.ZeroPadding2D(1, input_shape=F), L.Permute((2, 3, 1)), L.Flatten(), L.Dense(2)])), ("sep", lambda: Sequential([L.SeparableConv2D(4, 3, input_shape=F), L.DepthwiseConv2D(3), L.Flatten()])), ("transpose", lambda: Sequential([L.Conv2DTranspose(4, 3, strides=2, input_shape=F), L.GlobalMaxPooling2D()])), ("concat", lambda: (lambda x: Model(x, L.GlobalMaxPooling2D()(L.Concatenate(axis=1)([x, L.ReLU()(x)]))))(Input(F)))]:
    put("cf_" + n, cf(f))
# --- networks
def app(name, size=None, **kw):
    def f(): return getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3), **dict(dict(include_top=False, pooling="avg"), **kw))
    put("app_%s%s" % (name, "_top" if kw else ""), f, scale=50 if name.startswith(("Eff", "MobileNetV3", "Conv")) else 1, forms=("h5", "keras"))
app("MobileNetV2", 32, alpha=.35); app("MobileNet", 32, alpha=.25); app("EfficientNetB0", 32); app("MobileNetV3Small", 32); app("ResNet50V2", 32); app("DenseNet121", 32); app("NASNetMobile", 32); app("EfficientNetV2B0", 32); app("ConvNeXtTiny", 32); app("RegNetX002", 32); app("ResNetRS50", 32)
app("ResNet50", 32, include_top=True, classes=7); app("Xception", 71); app("InceptionV3", 75)

def inputs_of(model, like, scale):
    rng = np.random.RandomState(1); res = []
    shapes = like or [[2] + [9 if d is None else int(d) for d in (t.shape.as_list() if hasattr(t.shape, "as_list") else [getattr(d, "value", d) for d in t.shape])[1:]] for t in model.inputs]
    for s in shapes: res.append((rng.normal(0, 1, s) * scale).astype("float32"))
    return res
def flat(ys):
    if isinstance(ys, dict): return [y for k in sorted(ys) for y in flat(ys[k])]
    return [y for x in ys for y in flat(x)] if isinstance(ys, (list, tuple)) else [ys]
def dump(name, model, forms=FORMS, scale=1., rand=True, xs=None, like=None, save=None, named=False, structure=None):
    folder = os.path.join(ROOT, TAG)
    if rand: randomise(model)
    xs = inputs_of(model, like, scale) if xs is None else xs
    given = xs if len(xs) > 1 else xs[0]
    if named:  # a dictionary; what is stored is in the order of its keys
        keys = sorted(model.input) if isinstance(model.input, dict) else [t.name.split(":")[0] for t in model.inputs]
        given = dict(zip(keys, xs))
    if structure: given = structure(xs)
    ys = flat(model.predict(given))
    assert all(np.isfinite(np.asarray(y, "float32")).all() and np.abs(np.asarray(y, "float32")).max() > 1e-6 for y in ys), "bad outputs"
    d = dict([("x%d" % i, x) for i, x in enumerate(xs)] + [("y%d" % i, np.asarray(y, dtype="float32")) for i, y in enumerate(ys)])
    np.savez(os.path.join(folder, name + ".npz"), **d)
    for form in forms:
        try:
            path = os.path.join(folder, name)
            if form in ("h5", "keras"): save(path + "." + form) if save else model.save(path + "." + form)
            else:
                open(path + "__%s.json" % form, "w").write(model.to_json())
                model.save_weights(path + ("__weights.weights.h5" if form == "weights" else "__json.h5"))
        except Exception as error:
            print("NOT SAVED", name, form, repr(error)[:150])
            for left in (path + "." + form, path + "__%s.json" % form):
                if os.path.exists(left): os.remove(left)
if __name__ == "__main__":
    os.makedirs(os.path.join(ROOT, TAG), exist_ok=True); warnings.simplefilter("ignore"); n = 0
    for name, (build, kw) in CASES.items():
        if sys.argv[4:] and not any(fnmatch.fnmatch(name, p) for p in sys.argv[4:]): continue
        try:
            if hasattr(K, "clear_session"): K.clear_session()
            m = build()
            if isinstance(m, tuple): m, kw = m[0], dict(kw, **m[1])
            kw = dict(kw); forms = [f for f in FORMS if f in kw.pop("forms", FORMS)]
            dump(name, m, forms, **kw); n += 1
        except Exception as error: print("SKIPPED", name, type(error).__name__, str(error)[:120].replace("\n", " "))
        sys.stdout.flush()
    print("wrote", n)
