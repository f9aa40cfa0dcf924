"""Model as a Flax module: JAX's transformations, training and freezing, nesting, errors."""

from functools import partial

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import flaxapps
from flaxapps import Input, Model, layers
from flaxapps.registry import build_model
from tests.recipe import recipe_variables

FIRST_BLOCKS = {
    "xception": ("add", {"input_shape": (71, 72, 3)}),
    "resnet50": ("conv2_block3_out", {"input_shape": (32, 33, 3), "min_size": 32}),
}
IMAGE = (8, 8, 3)


def first_blocks(name, **arguments):
    last, shape = FIRST_BLOCKS[name]
    base = build_model(name, include_top=False, **shape, **arguments)
    return Model(base.input, base.get_layer(last).output)


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def trunk(name=None):
    image = Input(IMAGE, name="image")
    x = layers.Conv2D(4, 3, name="conv")(image)
    x = layers.BatchNormalization(name="norm")(x)
    return Model(image, layers.Activation("relu", name="relu")(x), name=name)


def classifier():
    """conv, norm, relu, dropout, pool, head; cheap enough to run without jit."""
    base = trunk()
    x = layers.Dropout(0.5, name="dropout")(base.output)
    return Model(base.input, layers.Dense(2, name="head")(layers.GlobalAveragePooling2D(name="pool")(x)))


def nested(**arguments):
    """A trunk as one layer under a head."""
    image = Input(IMAGE, name="photo")
    x = trunk("trunk")(image, **arguments)
    return Model(image, layers.Dense(2, name="head")(layers.GlobalAveragePooling2D(name="pool")(x)))


def assert_trees_close(ours, theirs, tolerance=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), ours, theirs)


def assert_trees_equal(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


# JAX's transformations


@pytest.mark.parametrize("name", FIRST_BLOCKS)
def test_gradient_with_respect_to_the_image(name):
    with jax.enable_x64(True):
        model = first_blocks(name, dtype="float64")
        variables = jax.tree.map(lambda array: jnp.asarray(array, "float64"), recipe_variables(model))
        generator = np.random.default_rng(0)
        image, direction = (generator.normal(size=(1, *model.input_shape[1:])) for _ in range(2))
        weights = generator.normal(size=(1, *model.output_shape[1:]))
        loss = jax.jit(lambda image: (model.apply(variables, image) * weights).sum())
        gradient = jax.jit(jax.grad(loss))(image)
        step = 1e-6
        slope = (loss(image + step * direction) - loss(image - step * direction)) / (2 * step)
        assert gradient.shape == image.shape
        assert float((gradient * direction).sum()) == pytest.approx(float(slope), rel=1e-5)


@pytest.mark.parametrize("name", FIRST_BLOCKS)
def test_vmap_over_stacked_variables(name):
    model = first_blocks(name)
    trees = [recipe_variables(model, seed) for seed in (1, 2)]
    images = random(2, *model.input_shape[1:])
    apply = jax.jit(model.apply)
    stacked = jax.jit(jax.vmap(model.apply, in_axes=(0, None)))(jax.tree.map(lambda *a: np.stack(a), *trees), images)
    for output, tree in zip(stacked, trees, strict=True):
        assert_trees_close(output, apply(tree, images), 1e-4)
    assert np.abs(stacked[0] - stacked[1]).max() > 0.1


def test_gradients_of_single_images():
    model = classifier()
    variables, images = model.init_variables(), random(3, *IMAGE)
    gradient = jax.grad(lambda params, image: model.apply(variables | {"params": params}, image[None])[0, 0])
    each = jax.jit(jax.vmap(gradient, in_axes=(None, 0)))(variables["params"], images)
    assert_trees_close(jax.tree.map(lambda g: g[1], each), jax.jit(gradient)(variables["params"], images[1]))


def test_jvp():
    model = classifier()
    variables, image, direction = model.init_variables(), random(1, *IMAGE), random(1, *IMAGE, seed=1)
    _, tangent = jax.jvp(lambda x: model.apply(variables, x), (image,), (direction,))
    jacobian = jax.jit(jax.jacrev(lambda x: model.apply(variables, x)))(image)
    np.testing.assert_allclose(tangent, (jacobian * direction).sum((2, 3, 4, 5)), rtol=1e-4, atol=1e-5)


def test_equal_models_share_compilations():
    traces = []

    @partial(jax.jit, static_argnums=0)
    def forward(model, variables, x):
        traces.append(model)
        return model.apply(variables, x)

    images = random(2, *IMAGE)
    first, second, other = classifier(), classifier(), nested()
    assert first is not second
    for model in (first, second, first):
        np.testing.assert_allclose(
            forward(model, model.init_variables(), images),
            model.apply(model.init_variables(), images),
            rtol=1e-4,
            atol=1e-6,
        )
    assert len(traces) == 1
    forward(other, other.init_variables(), images)
    assert len(traces) == 2


def test_remat():
    model = classifier()
    rematerialized = nn.remat(Model)(model.input, model.output)
    variables, images = model.init_variables(), random(2, *IMAGE)

    def gradient(module):
        return jax.grad(lambda params: module.apply(variables | {"params": params}, images).sum())(variables["params"])

    assert "prevent_cse" in str(jax.make_jaxpr(lambda v: rematerialized.apply(v, images))(variables))
    np.testing.assert_allclose(rematerialized.apply(variables, images), model.apply(variables, images), rtol=1e-5)
    assert_trees_close(gradient(rematerialized), gradient(model))


@pytest.mark.parametrize("name", FIRST_BLOCKS)
def test_tabulate(name):
    model = first_blocks(name)
    text = model.tabulate(
        jax.random.key(0), np.zeros((1, *model.input_shape[1:]), np.float32), console_kwargs={"width": 200}
    )
    missing = [layer.name for layer in model.layers[1:] if layer.name not in text]
    assert not missing
    assert f"{model.count_params():,}" in text


def test_intermediates_are_captured_by_layer_name():
    model = nested()
    variables, images = model.init_variables(), random(2, *IMAGE)
    output, state = model.apply(variables, images, capture_intermediates=True)
    captured = flax.traverse_util.flatten_dict(state["intermediates"], sep="/")
    expected = {f"trunk/{layer}/__call__" for layer in ("conv", "norm", "relu")} | {
        "pool/__call__",
        "head/__call__",
        "__call__",
    }
    assert set(captured) == expected
    inside = trunk()
    values = inside.apply({key: tree["trunk"] for key, tree in variables.items() if "trunk" in tree}, images)
    np.testing.assert_allclose(captured["trunk/relu/__call__"][0], values, rtol=1e-6)
    np.testing.assert_array_equal(captured["head/__call__"][0], output)


def test_a_shared_layer_is_captured_at_every_call():
    node = Input((4,))
    shared = layers.Dense(4, name="shared")
    model = Model(node, shared(shared(node)))
    _, state = model.apply(model.init_variables(), random(2, 4), capture_intermediates=True)
    assert len(state["intermediates"]["shared"]["__call__"]) == 2


# Nesting


class WithAttribute(nn.Module):
    base: Model

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(3)(self.base(x, train=train).mean((1, 2)))


class WithSetup(nn.Module):
    def setup(self):
        self.base = trunk()
        self.dense = nn.Dense(3)

    def __call__(self, x, train=False):
        return self.dense(self.base(x, train=train).mean((1, 2)))


class WithCompact(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(3)(trunk("base")(x, train=train).mean((1, 2)))


@pytest.mark.parametrize(
    "make", [lambda: WithAttribute(trunk()), WithSetup, WithCompact], ids=["attribute", "setup", "compact"]
)
def test_inside_another_linen_module(make):
    module, images = make(), random(2, *IMAGE)
    variables = module.init(jax.random.key(0), images)
    base = trunk()
    inner = base.init_variables(seed=3)
    shapes = jax.tree.map(np.shape, variables)
    assert shapes["params"]["base"] == jax.tree.map(np.shape, inner["params"])
    assert shapes["batch_stats"]["base"] == jax.tree.map(np.shape, inner["batch_stats"])
    filled = {key: tree | {"base": inner[key]} for key, tree in variables.items()}
    (dense,) = (tree for key, tree in filled["params"].items() if key != "base")
    expected = base.apply(inner, images).mean((1, 2)) @ dense["kernel"] + dense["bias"]
    np.testing.assert_allclose(module.apply(filled, images), expected, rtol=1e-5, atol=1e-6)
    _, updates = module.apply(filled, images, train=True, mutable=["batch_stats"])
    assert np.any(updates["batch_stats"]["base"]["norm"]["mean"] != 0)


def test_called_on_a_node_it_is_one_layer():
    model, inner = nested(), trunk()
    assert [layer.name for layer in model.layers] == ["photo", "trunk", "pool", "head"]
    layer = model.get_layer("trunk")
    assert layer.class_name == "Functional"
    assert layer.output_shape == (None, 6, 6, 4)
    assert [each.name for each in layer.layers] == ["image", "conv", "norm", "relu"]
    variables, images = model.init_variables(), random(2, *IMAGE)
    assert set(variables["params"]) == {"trunk", "head"}
    assert set(variables["params"]["trunk"]) == {"conv", "norm"}
    features = inner.apply({key: tree["trunk"] for key, tree in variables.items()}, images)
    head = variables["params"]["head"]
    expected = features.mean((1, 2)) @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(model.apply(variables, images), expected, rtol=1e-5, atol=1e-6)
    assert model.count_params() == inner.count_params() + 4 * 2 + 2


def test_a_model_nested_as_a_layer_checks_its_input():
    with pytest.raises(
        ValueError, match=r"takes inputs of shapes .*\(None, 8, 8, 3\).*got .*\(None, 9, 8, 3\)"
    ) as caught:
        trunk("trunk")(Input((9, 8, 3)))
    assert any("'trunk' of kind Functional" in note for note in caught.value.__notes__)


# Variables


@pytest.mark.parametrize(
    "make", [partial(first_blocks, "xception"), partial(first_blocks, "resnet50"), classifier, nested]
)
def test_init_and_init_variables_have_one_structure(make):
    model = make()
    images = jnp.zeros((1, *model.input_shape[1:]))
    by_flax = jax.eval_shape(model.init, jax.random.key(0), images)
    ours = jax.eval_shape(lambda: model.init_variables())
    assert jax.tree.structure(by_flax) == jax.tree.structure(ours)
    assert jax.tree.leaves(by_flax) == jax.tree.leaves(ours)
    assert {leaf.dtype for leaf in jax.tree.leaves(ours)} == {np.dtype("float32")}
    assert sum(leaf.size for leaf in jax.tree.leaves(ours)) == model.count_params()


def test_flax_init_draws_keras_initial_values():
    variables = classifier().init(jax.random.key(0), random(1, *IMAGE))
    assert np.ptp(variables["params"]["conv"]["kernel"]) > 0.1
    np.testing.assert_array_equal(variables["params"]["conv"]["bias"], 0)
    np.testing.assert_array_equal(variables["params"]["norm"]["scale"], 1)
    np.testing.assert_array_equal(variables["batch_stats"]["norm"]["mean"], 0)
    np.testing.assert_array_equal(variables["batch_stats"]["norm"]["var"], 1)


@pytest.mark.parametrize(
    ("make", "channels"),
    [
        (lambda: layers.Conv2D(64, 3, name="layer"), 32),
        (lambda: layers.Conv2D(64, 3, groups=4, name="layer"), 32),
        (lambda: layers.SeparableConv2D(64, 3, depth_multiplier=4, name="layer"), 32),
        (lambda: layers.Dense(200, name="layer"), 100),
    ],
)
def test_fresh_kernels_are_glorot_uniform_as_in_keras(make, channels):
    from keras.src.initializers.random_initializers import compute_fans

    node = Input((4, 4, channels))
    fresh = Model(node, make()(node)).init_variables(seed=1)["params"]["layer"]
    for leaf, array in fresh.items():
        if leaf == "bias":
            np.testing.assert_array_equal(array, 0)
            continue
        limit = np.sqrt(6 / sum(compute_fans(array.shape)))
        assert 0.95 * limit < np.abs(array).max() <= limit
        assert np.std(array) == pytest.approx(limit / np.sqrt(3), rel=0.1)
        assert abs(np.mean(array)) < 5 * limit / np.sqrt(3 * array.size)


def test_fresh_variables_depend_on_the_seed_and_the_path_only():
    first, second = classifier(), classifier()
    assert_trees_equal(first.init_variables(seed=4), second.init_variables(seed=4))
    assert np.any(
        first.init_variables(0)["params"]["conv"]["kernel"] != first.init_variables(1)["params"]["conv"]["kernel"]
    )
    longer = Model(first.input, layers.Dense(7, name="more")(first.output))
    assert_trees_equal(longer.init_variables(4)["params"]["conv"], first.init_variables(4)["params"]["conv"])


def test_init_variables_takes_from_base():
    base, model = trunk(), classifier()
    pretrained = jax.tree.map(lambda array: array + 5, base.init_variables(seed=1))
    pretrained["params"]["elsewhere"] = {"kernel": np.ones(3)}
    variables = model.init_variables(seed=2, base=pretrained)
    fresh = model.init_variables(seed=2)
    for name in ("conv", "norm"):
        assert_trees_equal(variables["params"][name], pretrained["params"][name])
    assert_trees_equal(variables["batch_stats"], pretrained["batch_stats"])
    assert_trees_equal(variables["params"]["head"], fresh["params"]["head"])
    assert "elsewhere" not in variables["params"]


def test_all_shapes_that_do_not_fit_base_are_listed():
    model = classifier()
    wrong = model.init_variables()
    wrong["params"]["head"] = {"kernel": np.zeros((4, 3)), "bias": np.zeros(3)}
    wrong["batch_stats"]["norm"] = {"mean": np.zeros(5), "var": np.ones(4)}
    with pytest.raises(ValueError, match="other shapes") as caught:
        model.init_variables(base=wrong)
    message = str(caught.value)
    assert "params/head/kernel: (4, 3) instead of (4, 2)" in message
    assert "params/head/bias: (3,) instead of (2,)" in message
    assert "batch_stats/norm/mean: (5,) instead of (4,)" in message
    assert message.count("instead of") == 3


# Inputs and outputs


def test_a_list_of_outputs():
    model = classifier()
    features = Model(model.input, [model.get_layer("relu").output, model.output])
    variables, images = model.init_variables(), random(2, *IMAGE)
    relu, output = features.apply(variables, images)
    assert features.output_shape == [(None, 6, 6, 4), (None, 2)]
    assert (relu.shape, output.shape) == ((2, 6, 6, 4), (2, 2))
    np.testing.assert_allclose(output, model.apply(variables, images), rtol=1e-6)
    single = Model(model.input, [model.output]).apply(variables, images)
    assert isinstance(single, list)
    assert len(single) == 1


def test_several_inputs():
    image, number = Input((4, 4, 3)), Input((2,))
    pooled = layers.GlobalMaxPooling2D()(image)
    model = Model([number, image], layers.Concatenate()([pooled, number]))
    images, numbers = random(2, 4, 4, 3), random(2, 2)
    assert model.input_shape == [(None, 2), (None, 4, 4, 3)]
    expected = np.concatenate([images.max((1, 2)), numbers], -1)
    np.testing.assert_array_equal(model.apply({}, [numbers, images]), expected)
    with pytest.raises(ValueError, match=r"takes 2 inputs, got 3"):
        model.apply({}, [numbers, images, images])
    with pytest.raises(ValueError, match=r"shape \(batch, 2\), got \(2, 4, 4, 3\)"):
        model.apply({}, [images, numbers])


def test_channels_first_is_transposed_at_the_boundary_only():
    def build(data_format):
        shape = (3, 8, 6) if data_format == "channels_first" else (8, 6, 3)
        x = Input(shape, data_format=data_format)
        y = layers.Conv2D(4, 3, name="conv")(x)
        return Model(x, [y, layers.Dense(2, name="head")(layers.Flatten()(y))])

    first, last = build("channels_first"), build("channels_last")
    assert first.input_shape == (None, 3, 8, 6)
    assert first.output_shape == [(None, 4, 6, 4), (None, 2)]
    variables, images = last.init_variables(), random(2, 8, 6, 3)
    assert_trees_equal(first.init_variables(), variables)
    maps, vectors = first.apply(variables, np.moveaxis(images, -1, 1))
    expected_maps, expected_vectors = last.apply(variables, images)
    np.testing.assert_array_equal(np.moveaxis(maps, 1, -1), expected_maps)
    np.testing.assert_array_equal(vectors, expected_vectors)
    with pytest.raises(ValueError, match=r"shape \(batch, 3, 8, 6\), got \(2, 8, 6, 3\)"):
        first.apply(variables, images)
    assert first != last


def test_inputs_of_two_data_formats():
    first = Input((3, 8, 6), data_format="channels_first")
    last = Input((8, 6, 3), data_format="channels_last")
    pool = layers.GlobalMaxPooling2D()
    model = Model([first, last], layers.Concatenate()([pool(first), pool(last)]))
    assert model.input_shape == [(None, 3, 8, 6), (None, 8, 6, 3)]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((8, 8, 3), r"shape \(batch, 8, 8, 3\), got \(8, 8, 3\): put one image into a batch with x\[None\]"),
        ((2, 8, 8, 4), r"shape \(batch, 8, 8, 3\), got \(2, 8, 8, 4\)"),
        ((2, 9, 8, 3), r"got \(2, 9, 8, 3\)"),
        ((2, 1, 8, 8, 3), r"got \(2, 1, 8, 8, 3\)"),
        ((), r"got \(\)"),
    ],
)
def test_arrays_of_another_shape(shape, message):
    model = classifier()
    with pytest.raises(ValueError, match=message):
        model.apply(model.init_variables(), np.zeros(shape, np.float32))


def test_free_sizes_are_called_any():
    node = Input((None, None, 3))
    model = Model(node, layers.Activation("relu")(node), name="free")
    assert model.apply({}, random(2, 5, 9, 3)).shape == (2, 5, 9, 3)
    with pytest.raises(ValueError, match=r"free takes arrays of shape \(batch, any, any, 3\), got \(2, 5, 9, 1\)"):
        model.apply({}, random(2, 5, 9, 1))


@pytest.mark.parametrize("dtype", ["<U3", object, "datetime64[s]"])
def test_arrays_that_are_not_numbers(dtype):
    model = classifier()
    with pytest.raises(ValueError, match="arrays of numbers, got dtype"):
        model.apply(model.init_variables(), np.zeros((1, *IMAGE), dtype))


@pytest.mark.parametrize("dtype", ["uint8", "int32", "bool", "float16", "bfloat16", "float64"])
def test_numbers_of_any_kind_are_computed_in_float32(dtype):
    model = classifier()
    values = np.random.default_rng(0).integers(0, 2, (2, *IMAGE))
    output = model.apply(model.init_variables(), values.astype(jnp.dtype(dtype)))
    assert output.dtype == np.float32
    np.testing.assert_allclose(output, model.apply(model.init_variables(), values.astype(np.float32)), rtol=1e-6)


def test_bfloat16_network_keeps_float32_parameters():
    node = Input(IMAGE, dtype="bfloat16")
    model = Model(node, layers.BatchNormalization()(layers.Conv2D(4, 3)(node)))
    assert model.apply(model.init_variables(), random(1, *IMAGE)).dtype == jnp.bfloat16
    assert {array.dtype for array in jax.tree.leaves(model.init_variables())} == {np.dtype("float32")}


def test_a_model_without_arrays_says_how_to_call_it():
    with pytest.raises(ValueError, match=r"holds no arrays: call model.apply\(variables, x\) or flaxapps.predict"):
        classifier()(random(1, *IMAGE))


@pytest.mark.parametrize(
    "name", ["outputs", "inputs", "name", "layers", "parent", "scope", "graph", "init", "recorded"]
)
def test_layers_may_be_called_like_attributes_of_a_module(name):
    image = Input(IMAGE)
    x = layers.BatchNormalization(name=name)(layers.Conv2D(4, 3)(image))
    model = Model(image, layers.Activation("relu")(x))
    variables, images = model.init_variables(), random(2, *IMAGE)
    assert model.get_layer(name).class_name == "BatchNormalization"
    _, updates = model.apply(variables, images, train=True, mutable=["batch_stats"])
    assert set(updates["batch_stats"]) == {name}
    assert jax.tree.structure(jax.eval_shape(model.init, jax.random.key(0), images)) == jax.tree.structure(variables)


# Layers


def test_layers_have_their_configuration_as_attributes():
    conv = classifier().get_layer("conv")
    assert (conv.name, conv.class_name, conv.filters, conv.kernel_size, conv.padding) == (
        "conv",
        "Conv2D",
        4,
        (3, 3),
        "valid",
    )
    assert (conv.strides, conv.use_bias, conv.output_shape) == ((1, 1), True, (None, 6, 6, 4))
    assert {leaf: weight.shape for leaf, weight in conv.weights.items()} == {"kernel": (3, 3, 3, 4), "bias": (4,)}
    assert not hasattr(conv, "units")


def test_get_layer():
    model = classifier()
    assert model.get_layer("conv").name == model.get_layer(index=1).name == model.get_layer(index=-6).name == "conv"
    assert model.get_layer(index=0).class_name == "InputLayer"
    assert model.get_layer("conv").output.shape == (None, 6, 6, 4)
    with pytest.raises(ValueError, match=r"No layer is called 'conv9'. There are: image, conv, norm"):
        model.get_layer("conv9")
    for index in (7, -8):
        with pytest.raises(ValueError, match=rf"There are 7 layers, got index={index}"):
            model.get_layer(index=index)
    for arguments in ({}, {"name": "conv", "index": 1}):
        with pytest.raises(ValueError, match="either the name or the index"):
            model.get_layer(**arguments)


def test_summary(capsys):
    nested().summary()
    text = capsys.readouterr().out
    lines = [" ".join(line.replace("│", " ").replace("┃", " ").split()) for line in text.splitlines()]
    assert "# layer kind output shape parameters connected to" in lines
    assert "0 photo InputLayer (None, 8, 8, 3)" in lines
    assert "1 trunk Functional (None, 6, 6, 4) 128 photo" in lines
    assert "1 conv Conv2D (None, 6, 6, 4) 112 image" in lines
    assert "3 head Dense (None, 2) 10 pool" in lines
    assert "138 parameters (0.0 MB), 130 trainable, 8 statistics" in lines


def test_summary_of_a_network_has_a_row_for_every_layer(capsys):
    model = build_model("inception_v3", include_top=False)
    model.summary()
    text = capsys.readouterr().out
    assert all(layer.name in text for layer in model.layers)
    assert "21,802,784 parameters (87.2 MB), 21,768,352 trainable, 34,432 statistics" in " ".join(text.split())


# Training and freezing


def train(model, variables, images, **arguments):
    rngs = {"dropout": jax.random.key(0)}
    return model.apply(variables, images, train=True, rngs=rngs, **arguments)


def test_training_moves_statistics_where_they_are_mutable():
    model, images = classifier(), random(4, *IMAGE)
    variables = model.init_variables()
    _, updates = train(model, variables, images, mutable=["batch_stats"])
    assert set(updates) == {"batch_stats"}
    convolved = Model(model.input, model.get_layer("conv").output).apply(variables, images)
    moved = updates["batch_stats"]["norm"]
    np.testing.assert_allclose(moved["mean"], 0.01 * convolved.mean((0, 1, 2)), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(moved["var"], 0.99 + 0.01 * convolved.var((0, 1, 2)), rtol=1e-5)
    _, unmoved = model.apply(variables, images, mutable=["batch_stats"])
    assert_trees_equal(unmoved["batch_stats"], variables["batch_stats"])


def test_training_without_mutable_statistics_is_an_error():
    model = classifier()
    with pytest.raises(flax.errors.ModifyScopeVariableError) as caught:
        train(model, model.init_variables(), random(4, *IMAGE))
    assert any("In layer 'norm' of kind BatchNormalization" in note for note in caught.value.__notes__)


def test_inference_is_the_default_and_needs_nothing():
    model, images = classifier(), random(4, *IMAGE)
    variables = model.init_variables()
    np.testing.assert_array_equal(model.apply(variables, images), model.apply(variables, images, train=False))


def test_training_false_at_a_call_stays_in_inference_mode():
    model, images = nested(training=False), random(4, *IMAGE)
    variables = recipe_variables(model)
    output, updates = model.apply(variables, images, train=True, mutable=["batch_stats"])
    np.testing.assert_array_equal(output, model.apply(variables, images))
    assert_trees_equal(updates["batch_stats"], variables["batch_stats"])
    follows, _ = nested().apply(variables, images, train=True, mutable=["batch_stats"])
    assert np.abs(follows - output).max() > 1e-3


def test_training_true_at_a_call_trains_always():
    node = Input((1000,))
    model = Model(node, layers.Dropout(0.5)(node, training=True))
    output = model.apply({}, np.ones((1, 1000), np.float32), rngs={"dropout": jax.random.key(0)})
    assert set(np.unique(output)) == {0, 2}


def test_train_and_training_are_one_argument():
    node = Input((1000,))
    inner = Model(node, layers.Dropout(0.5)(node))
    images, keys = np.ones((1, 1000), np.float32), {"dropout": jax.random.key(0)}
    for word in ("train", "training"):
        assert set(np.unique(inner.apply({}, images, **{word: True}, rngs=keys))) == {0, 2}
        outer = Model(node, inner(node, **{word: False}))
        assert set(np.unique(outer.apply({}, images, train=True, rngs=keys))) == {1}
    with pytest.raises(ValueError, match="train=True and training=False"):
        inner.apply({}, images, train=True, training=False)
    with pytest.raises(ValueError, match="no `frozen`"):
        inner(node, frozen=frozenset({"dropout"}))


FROZEN = [
    (classifier, frozenset(), set()),
    (classifier, frozenset({"norm"}), {("norm",)}),
    (classifier, frozenset({"conv", "norm"}), {("conv",), ("norm",)}),
    (classifier, frozenset({"head"}), {("head",)}),
    (
        classifier,
        frozenset({"image", "conv", "norm", "relu", "dropout", "pool", "head"}),
        {("conv",), ("norm",), ("head",)},
    ),
    (nested, frozenset({"trunk"}), {("trunk", "conv"), ("trunk", "norm")}),
    (nested, frozenset({"trunk/norm"}), {("trunk", "norm")}),
    (nested, frozenset({"trunk/conv", "head"}), {("trunk", "conv"), ("head",)}),
]


@pytest.mark.parametrize(("make", "frozen", "expected"), FROZEN, ids=[",".join(sorted(case[1])) for case in FROZEN])
def test_frozen_layers(make, frozen, expected):
    model, images = make(), random(4, *IMAGE)
    variables = recipe_variables(model)

    def loss(params):
        output, updates = train(model, variables | {"params": params}, images, frozen=frozen, mutable=["batch_stats"])
        return (output * random(*output.shape, seed=5)).sum(), (output, updates)

    gradients, (output, updates) = jax.grad(loss, has_aux=True)(variables["params"])
    flat = flax.traverse_util.flatten_dict(gradients)
    still = {path[:-1] for path, gradient in flat.items() if not np.any(gradient)}
    norm = next(path for path in {path[:-1] for path in flat} if path[-1] == "norm")
    moving = not (norm in expected or "norm" in frozen)
    # The bias before a normalization by the statistics of the batch has no effect, so no gradient to speak of.
    assert {path for path in still if path[-1] != "conv" or not np.any(flat[(*path, "kernel")])} == expected
    before, after = (flax.traverse_util.flatten_dict(tree["batch_stats"]) for tree in (variables, updates))
    for path, array in before.items():
        assert np.array_equal(array, after[path]) != moving
    if not moving and make is nested:
        np.testing.assert_array_equal(output, model.apply(variables, images))  # in inference mode


def test_frozen_layers_let_gradients_through_to_what_is_before_them():
    model, images = classifier(), random(4, *IMAGE)
    variables = recipe_variables(model)

    def loss(params, frozen):
        return train(model, variables | {"params": params}, images, frozen=frozenset(frozen), mutable=["batch_stats"])[
            0
        ].sum()

    free, behind = (jax.grad(loss)(variables["params"], frozen) for frozen in ((), ("head",)))
    assert np.any(behind["conv"]["kernel"])
    assert_trees_equal(behind["conv"], free["conv"])


def test_a_frozen_dropout_still_drops():
    node = Input((100,))
    model = Model(node, layers.Dropout(0.5, name="dropout")(node))
    output = train(model, {}, np.ones((1, 100), np.float32), frozen=frozenset({"dropout"}))
    assert set(np.unique(output)) == {0, 2}


@pytest.mark.parametrize(
    ("make", "frozen", "message"),
    [
        (classifier, {"conv", "convolution"}, r"not in the model: \['convolution'\]"),
        (classifier, {"conv/kernel"}, r"\['conv/kernel'\]"),
        (nested, {"conv"}, r"\['conv'\]"),
        (nested, {"trunk/dense"}, r"\['trunk/dense'\]"),
        (nested, {"trunk/"}, r"\['trunk/'\]"),
    ],
)
def test_frozen_names_that_are_not_there(make, frozen, message):
    model = make()
    with pytest.raises(ValueError, match=message):
        model.apply(model.init_variables(), random(1, *IMAGE), frozen=frozenset(frozen))


def test_all_frozen_names_that_are_not_there_are_listed():
    model = nested()
    with pytest.raises(ValueError, match=r"\['other', 'trunk/a', 'trunk/b'\]"):
        model.apply(
            model.init_variables(), random(1, *IMAGE), frozen=frozenset({"trunk/b", "other", "trunk/a", "head"})
        )


def test_a_name_must_be_in_a_set():
    model = classifier()
    with pytest.raises((TypeError, ValueError), match="frozen"):
        model.apply(model.init_variables(), random(1, *IMAGE), frozen="conv")


def test_public_names():
    assert flaxapps.Model is Model
    assert flaxapps.Input is Input


def test_summary_in_columns_of_a_width(capsys):
    nested().summary(width=60)
    narrow = capsys.readouterr().out
    assert max(map(len, narrow.splitlines())) <= 60
    assert "connected to" not in " ".join(narrow.split()).partition("parameters (")[0]
    nested().summary(width=200)
    assert "GlobalAveragePooling2D" in capsys.readouterr().out
