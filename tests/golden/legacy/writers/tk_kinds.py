"""Kinds of tf.keras that tk.py leaves out, many to a file: python w/tk_kinds.py TAG FORMS"""
import sys; sys.path.insert(0, "w")
from common_writer import *
import tensorflow as tf
keras = tf.keras
L, K = keras.layers, keras.backend
TAG = sys.argv[1]; MINOR = int(TAG[3:]); FORMS = sys.argv[2].split(",")
def have(*names): return all(hasattr(L, n) for n in names)
def each(shape, layers, **kw):
    """One output per layer, all of one input."""
    x = L.Input(shape); return keras.Model(x, [layer(x) for layer in layers]), kw
def sequences():
    ls = [L.Conv1D(3, 2), L.Conv1D(3, 3, padding="causal", dilation_rate=2, activation="relu"), L.SeparableConv1D(3, 2)]
    return each((7, 4), ls)
def more_sequences():
    ls = []
    if have("Conv1DTranspose"): ls += [L.Conv1DTranspose(3, 3, strides=2, padding="same", output_padding=1)]
    if have("DepthwiseConv1D"): ls += [L.DepthwiseConv1D(2, depth_multiplier=2), L.Conv1D(4, 3, strides=2, padding="same", groups=2)]
    return each((7, 4), ls)
def steps():
    ls = [L.MaxPooling1D(2), L.AveragePooling1D(3, 2, "same"), L.GlobalMaxPooling1D(), L.GlobalAveragePooling1D(),
          L.ZeroPadding1D((1, 2)), L.Cropping1D((2, 1)), L.UpSampling1D(2), L.SpatialDropout1D(.3), L.Permute((2, 1))]
    return each((7, 4), ls)
def volumes():
    return each((3, 4, 4, 2), [L.Conv3D(3, 2), L.Conv3D(2, (1, 2, 3), strides=2, padding="same"), L.Conv3DTranspose(2, 2, strides=2)])
def boxes():
    ls = [L.MaxPooling3D(2), L.AveragePooling3D(3, 2, "same"),
          L.GlobalMaxPooling3D(), L.GlobalAveragePooling3D(), L.ZeroPadding3D(((0, 1), (1, 0), (0, 0))), L.Cropping3D(((1, 0), (0, 1), (1, 1))), L.UpSampling3D((1, 2, 1)), L.SpatialDropout3D(.3)]
    return each((3, 4, 4, 2), ls)
def images():
    ls = [L.ActivityRegularization(.1), L.AlphaDropout(.1), L.GaussianDropout(.1), L.GaussianNoise(.1), L.SpatialDropout2D(.1), L.ThresholdedReLU(.3), L.Softmax(), L.ELU(.3), L.Activation("gelu" if hasattr(keras.activations, "gelu") else "elu"), L.Dense(3)]
    return each((4, 4, 3), ls)
def augmentation():
    ls = []
    for n in ("RandomBrightness", "RandomContrast", "RandomFlip", "RandomRotation", "RandomTranslation", "RandomZoom"):
        if have(n): ls.append(getattr(L, n)(*{"RandomFlip": ()}.get(n, (.1, .1) if n == "RandomTranslation" else (.1,))))
    if have("CenterCrop"): ls += [L.CenterCrop(2, 3)]
    return each((4, 4, 3), ls)
def identities():
    ls = [L.Reshape((8, 6)), L.Flatten(), L.Permute((3, 1, 2)), L.Dropout(.2)]
    if have("Identity"): ls += [L.Identity()]
    if have("UnitNormalization"): ls += [L.UnitNormalization()]
    return each((4, 4, 3), ls)
def wrappers():
    inner = keras.Sequential([L.Input((4, 4, 2)), L.Conv2D(2, 2), L.Flatten()])
    ls = [L.TimeDistributed(L.Conv2D(3, 2)), L.TimeDistributed(L.Flatten()), L.TimeDistributed(inner)]
    return each((3, 4, 4, 2), ls)
def spectral():
    return each((4, 4, 2), [L.SpectralNormalization(L.Conv2D(3, 2)), L.SpectralNormalization(L.Dense(3))])
def attention():
    x, y = L.Input((4, 6)), L.Input((5, 6)); outs = [L.Attention(use_scale=True)([x, y]), L.Attention()([x, y, y], **({"return_attention_scores": True} if MINOR >= 4 else {})), L.AdditiveAttention()([x, y])]
    outs = [o for out in outs for o in (out if isinstance(out, (list, tuple)) else [out])]
    if MINOR >= 11: outs += [L.Attention()([x, x], use_causal_mask=True)]
    return keras.Model([x, y], outs), {}
def heads():
    x, y = L.Input((4, 6)), L.Input((5, 6))
    return keras.Model([x, y], [L.MultiHeadAttention(2, 3)(x, y), L.MultiHeadAttention(2, 3, value_dim=2, output_shape=5, dropout=.1)(query=x, value=y, key=y)]), {}
def heads_options():
    x = L.Input((4, 6)); outs = [*L.MultiHeadAttention(2, 3)(x, x, return_attention_scores=True)]
    if MINOR >= 11: outs += [L.MultiHeadAttention(2, 3)(x, x, use_causal_mask=True)]
    return keras.Model(x, outs), {}
def attention_masks():
    x, y, m = L.Input((4, 6)), L.Input((5, 6)), L.Input((4, 5)); out = L.MultiHeadAttention(2, 3)(x, y, attention_mask=m)
    r = np.random.RandomState(3); mask = (r.uniform(size=(2, 4, 5)) < .6).astype("float32"); mask[:, :, 0] = 1
    return keras.Model([x, y, m], out), dict(xs=[r.normal(size=(2, 4, 6)).astype("float32"), r.normal(size=(2, 5, 6)).astype("float32"), mask])
def equations():
    E = L.EinsumDense if have("EinsumDense") else L.experimental.EinsumDense
    return each((3, 4), [E("abc,cd->abd", (None, 5), bias_axes="d", activation="relu"), E("...x,xy->...y", 6), E("abc,cde->abde", (None, 2, 3), bias_axes="de")])
def indices():
    x = L.Input((3,), dtype="int32"); outs = [L.Embedding(7, 4)(x), L.Embedding(7, 2, input_length=3)(x)]
    if have("CategoryEncoding"): outs += [L.CategoryEncoding(num_tokens=7, output_mode="multi_hot")(x), L.CategoryEncoding(7, output_mode="count")(x)]
    return keras.Model(x, outs), dict(xs=[np.array([[1, 2, 2], [6, 0, 3]], "int32")])
def ranges():
    ls = [L.Discretization([0., .5, 1.]), L.Discretization([0., .5, 1.], output_mode="one_hot"), L.Discretization([0., .5], output_mode="multi_hot")]
    x = L.Input((1,)); return keras.Model(x, [l(x) for l in ls]), dict(xs=[np.array([[.5], [-1.]], "float32")])
def masking():
    x = L.Input((5, 3)); y = L.Masking(.5)(x); return keras.Model(x, [L.Dense(2)(y), L.ReLU()(y)]), dict(xs=[np.concatenate([np.full((2, 2, 3), .5), np.random.RandomState(0).normal(size=(2, 3, 3))], 1).astype("float32")])
def merges():
    x, y = L.Input((4, 6)), L.Input((4, 6)); ls = [L.Add(), L.Average(), L.Concatenate(axis=1), L.Dot(axes=2, normalize=True), L.Dot(axes=(1, 1)), L.Maximum(), L.Minimum(), L.Multiply(), L.Subtract()]
    return keras.Model([x, y], [l([x, y]) for l in ls]), {}
def whole_numbers():  # photos as they are
    x = L.Input((6, 6, 3), dtype="uint8"); ls = [L.Resizing(4, 9), L.Resizing(4, 9, interpolation="nearest"), L.CenterCrop(4, 3), L.RandomFlip(), L.RandomContrast(.1), L.Rescaling(1/255.), L.ZeroPadding2D()]
    return keras.Model(x, [l(x) for l in ls]), dict(xs=[np.random.RandomState(0).randint(0, 255, (2, 6, 6, 3)).astype("uint8")])
CASES = [augmentation, identities, more_sequences, steps, boxes, sequences, volumes, images, wrappers, attention, equations, indices, masking, merges]
if have("MultiHeadAttention"): CASES += [heads, heads_options, attention_masks]
if have("Discretization"): CASES += [ranges]
if have("Resizing"): CASES += [whole_numbers]
if have("SpectralNormalization"): CASES += [spectral]
for f in [f for f in CASES if not sys.argv[3:] or f.__name__ in sys.argv[3:]]:
    K.clear_session()
    try: m, kw = f(); dump(TAG, f.__name__, m, forms=FORMS, **kw)
    except Exception as e: print("BUILD FAILED", f.__name__, repr(e)[:300])
