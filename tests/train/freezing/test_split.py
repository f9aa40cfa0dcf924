"""Splitting at the frozen layers: every kind of cut computes and trains as the whole model does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxapps import Input, Model, layers, train
from flaxapps.registry import build_model
from flaxapps.train.freezing.split import split_at_frozen

IMAGES = np.random.default_rng(0).normal(0, 1, (6, 8, 8, 3)).astype("float32")
LABELS = np.arange(6, dtype="int32") % 4


def unit(x, number, **options):
    x = layers.Conv2D(4, 3, padding="same", name=f"conv{number}", **options)(x)
    return layers.Activation("relu", name=f"relu{number}")(layers.BatchNormalization(name=f"norm{number}")(x))


def classify(x):
    return layers.Dense(4, name="head")(layers.GlobalAveragePooling2D(name="pool")(x))


def chain(shape=(8, 8, 3), **options):
    x = Input(shape, **options)
    return Model(x, classify(unit(unit(unit(x, 1), 2), 3)))


def residual():
    x = Input((8, 8, 3))
    first = unit(x, 1)
    return Model(x, classify(layers.Add(name="add")([first, unit(unit(first, 2), 3)])))


def branches():
    x = Input((8, 8, 3))
    first = unit(x, 1)
    joined = layers.Concatenate(name="joined")([unit(first, 2), unit(first, 3), layers.MaxPooling2D(3, 1, "same")(x)])
    return Model(x, classify(unit(joined, 4)))


def base():
    inner = chain()
    return Model(inner.input, inner.get_layer("relu3").output, name="base")


def nested(**options):
    x = Input((8, 8, 3))
    return Model(x, classify(base()(x, **options)))


def called_twice():
    x = Input((8, 8, 3))
    twice = base()
    return Model(x, classify(layers.Concatenate(name="both")([twice(x), twice(layers.Rescaling(-1.0)(x))])))


CUTS = {
    "chain": (chain(), {"conv1", "norm1"}, [(None, 8, 8, 4)]),
    "to the head": (chain(), {f"{kind}{n}" for kind in ("conv", "norm") for n in (1, 2, 3)}, [(None, 4)]),
    "without its BatchNormalization": (chain(), {"conv1"}, [(None, 8, 8, 4)]),
    "free size": (Model((x := Input((None, None, 3))), classify(unit(unit(x, 1), 2))), {"conv1"}, [(None,) * 3 + (4,)]),
    "channels first": (chain((3, 8, 8), data_format="channels_first"), {"conv1", "norm1"}, [(None, 4, 8, 8)]),
    "bfloat16": (chain(dtype="bfloat16"), {"conv1", "norm1"}, [(None, 8, 8, 4)]),
    "residual": (residual(), {"conv1", "norm1", "conv2", "norm2"}, [(None, 8, 8, 4)] * 2),
    "one branch": (branches(), {"conv1", "norm1", "conv2", "norm2"}, [(None, 8, 8, 4)] * 2 + [(None, 8, 8, 3)]),
    "nested": (nested(), {"base"}, [(None, 4)]),
    "nested in part": (nested(), {"base/conv1", "base/norm1"}, [(None, 8, 8, 4)]),
    "nested for inference": (nested(training=False), {"base/conv1", "base/norm1"}, [(None, 8, 8, 4)]),
    "in training mode whatever the model's": (nested(training=True), {"base"}, [(None, 4)]),
    "called twice": (called_twice(), {"base/conv1", "base/norm1"}, [(None, 8, 8, 4)] * 2),
}
QUICK = ("chain", "residual", "nested in part")


def seen_before(model):
    """Variables whose statistics are away from 0 and 1."""
    variables = model.init_variables()
    return variables | {"batch_stats": jax.tree.map(lambda leaf: leaf + 0.3, variables["batch_stats"])}


def one_step(model, variables, images, frozen):
    """Loss, gradients of what trains, and new statistics: op by op, which needs no compilation of its own."""
    trainable, still = train.split_params(variables["params"], frozen)

    def loss(params):
        params = train.merge_params(params, still)
        options = {"train": True, "frozen": frozen, "mutable": ["batch_stats"]}
        outputs, updates = model.apply(variables | {"params": params}, images, **options)
        return train.sparse_categorical_crossentropy(LABELS, outputs, from_logits=True).mean(), updates

    return jax.value_and_grad(loss, has_aux=True)(trainable)


@pytest.mark.parametrize("cut", [cut if cut in QUICK else pytest.param(cut, marks=pytest.mark.slow) for cut in CUTS])
def test_the_head_on_the_outputs_of_the_trunk_trains_as_the_whole_does(cut):
    model, frozen, shapes = CUTS[cut]
    frozen = frozenset(frozen)
    variables = seen_before(model)
    trunk, head = split_at_frozen(model, frozen)
    assert (trunk.output_shape if len(shapes) > 1 else [trunk.output_shape]) == shapes
    images = np.moveaxis(IMAGES, -1, 1) if cut == "channels first" else IMAGES
    features = trunk.apply(trunk.init_variables(base=variables), images)
    features = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), features)
    (loss, updates), gradients = one_step(head, head.init_variables(base=variables), features, frozenset())
    (wanted_loss, wanted_updates), wanted_gradients = one_step(model, variables, images, frozen)
    np.testing.assert_allclose(loss, wanted_loss, rtol=1e-5)
    statistics = train.merge_params(updates, {"batch_stats": variables["batch_stats"]})
    for one, other in ((gradients, wanted_gradients), (statistics, wanted_updates)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), one, other)


def test_models_split_alike_are_equal():
    assert split_at_frozen(chain(), frozenset({"conv1"})) == split_at_frozen(chain(), frozenset({"conv1"}))
    model = train.without_last_activation(Model((x := Input((4,))), layers.Dense(2, "softmax")(layers.Dense(3)(x))))
    assert train.last_activation(split_at_frozen(model, frozenset({"dense_1"})).head) == "linear"


def dropping(rate, **options):
    x = Input((8, 8, 3))
    y = layers.Dropout(rate, name="drop")(unit(x, 1), **options)
    return Model(x, classify(unit(y, 2)))


def test_what_breaks_the_beginning_is_named():
    with pytest.raises(ValueError, match="'conv2' comes after 'norm1', which trains; 'norm3' comes after 'norm1'"):
        split_at_frozen(chain(), frozenset({"conv1", "conv2", "norm3"}))
    with pytest.raises(ValueError, match="'base/conv3' comes after 'base/conv1', which trains"):
        split_at_frozen(nested(), frozenset({"base/conv3"}))
    x = Input((8, 8, 3))
    late = Model(x, classify(base()(layers.Conv2D(3, 1, name="conv1")(x))))
    with pytest.raises(ValueError, match="'base' comes after 'conv1', which trains"):
        split_at_frozen(late, frozenset({"base"}))
    frozen = frozenset({"conv1", "norm1", "conv2", "norm2", "drop"})
    with pytest.raises(ValueError, match="'conv2' comes after 'drop', which is random in training"):
        split_at_frozen(dropping(0.5), frozen)
    for still in (dropping(0.0), dropping(0.5, training=False)):
        assert split_at_frozen(still, frozen).trunk.output_shape == (None, 4)
    flipped = Model(x, classify(unit(layers.RandomFlip()(x), 1)))
    with pytest.raises(ValueError, match="'random_flip', which is random"):
        split_at_frozen(flipped, frozenset({"conv1"}))


def test_nothing_or_everything_frozen_is_an_error():
    with pytest.raises(ValueError, match="No layer with parameters"):
        split_at_frozen(chain(), frozenset({"relu1"}))
    with pytest.raises(ValueError, match="Every layer with parameters"):
        split_at_frozen(chain(), frozenset(layer.name for layer in chain().layers))
    with pytest.raises(ValueError, match="nowhere"):
        split_at_frozen(chain(), frozenset({"nowhere"}))


@pytest.mark.parametrize(
    ("until", "shapes"),
    [
        (172, [(None, 17, 17, 768), (None, 17, 17, 160), (None, 17, 17, 160)]),  # inside mixed6
        ("mixed8", (None, 8, 8, 1280)),
        (311, (None, 2048)),  # the whole base, and the pooling behind it
    ],
)
def test_inception_v3(until, shapes):
    base = build_model("inception_v3")
    model = Model(base.input, classify(base.get_layer("mixed10").output))
    trunk, head = split_at_frozen(model, train.frozen_layers(model, until=until))
    assert trunk.output_shape == head.input_shape == shapes
    assert trunk.count_params() + head.count_params() == model.count_params()
