"""Order and names of layers against real Keras on small graphs; graphs as values."""

import itertools
import pickle

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import flaxapps
from flaxapps import Input, Model, layers
from flaxapps.graph.graph import source_inputs
from flaxapps.registry import build_model
from tests.networks import fresh_keras


def table(model):
    return [(layer.name, type(getattr(layer, "layer", layer)).__name__) for layer in model.layers]


# Each is built twice: `library` is keras or flaxapps, which have the same three names.


def chain(library):
    x = image = library.Input((8, 8, 3))
    for _ in range(3):
        x = library.layers.Activation("relu")(library.layers.BatchNormalization()(library.layers.Conv2D(4, 3)(x)))
    return library.Model(image, library.layers.Dense(2)(library.layers.Flatten()(x)))


def branches_of_different_lengths(library):
    image = library.Input((8, 8, 3))
    short = library.layers.Conv2D(2, 1)(image)
    middle = library.layers.Conv2D(2, 1)(image)
    middle = library.layers.Conv2D(2, 3, padding="same")(middle)
    long = library.layers.AveragePooling2D(3, strides=1, padding="same")(image)
    for _ in range(3):
        long = library.layers.Conv2D(2, 1)(long)
    return library.Model(image, library.layers.Concatenate()([short, middle, long]))


def skip_connections(library):
    x = image = library.Input((8, 8, 4))
    for first in (True, False):
        y = library.layers.Conv2D(4, 3, padding="same")(library.layers.Activation("relu")(x))
        y = library.layers.BatchNormalization()(y)
        x = library.layers.Add()([x, y] if first else [y, x])
    return library.Model(image, x)


def shortcut_made_last(library):
    image = library.Input((8, 8, 4))
    main = library.layers.Conv2D(4, 1)(image)
    main = library.layers.Conv2D(4, 1)(main)
    return library.Model(image, library.layers.Add()([library.layers.Conv2D(4, 1)(image), main]))


def layers_made_before_they_are_called(library):
    image = library.Input((8, 8, 4))
    first, second = library.layers.Dense(4), library.layers.Dense(4)
    return library.Model(image, library.layers.Dense(2)(library.layers.Dense(3)(first(second(image)))))


def shared_at_two_depths(library):
    image = library.Input((8, 8, 4))
    shared = library.layers.Conv2D(4, 3, padding="same", name="shared")
    deep = library.layers.Activation("tanh")(image)
    deep = library.layers.Activation("relu")(shared(deep))
    return library.Model(image, library.layers.Add()([shared(image), shared(deep)]))


def shared_pooling_after_shared_layer(library):
    image = library.Input((8, 8, 4))
    shared, pooling = library.layers.Dense(4), library.layers.GlobalAveragePooling2D()
    first = pooling(shared(image))
    second = pooling(shared(library.layers.Activation("relu")(shared(image))))
    return library.Model(image, library.layers.Concatenate()([second, first]))


def inputs_in_the_order_of_their_use(library):
    first, second = library.Input((4,)), library.Input((4,))
    merged = library.layers.Concatenate()([library.layers.Dense(2)(first), library.layers.Dense(2)(second)])
    return library.Model([first, second], [library.layers.Dense(3)(merged), merged])


def inputs_used_in_the_other_order(library):
    first, second = library.Input((4,)), library.Input((4,))
    return library.Model([first, second], library.layers.Add()([second, first]))


def inputs_that_meet_after_layers_made_in_another_order(library):
    first, second = library.Input((4,)), library.Input((4,))
    from_second = library.layers.Dense(2)(second)
    from_first = library.layers.Dense(2)(first)
    return library.Model([first, second], library.layers.Add()([from_first, from_second]))


def outputs_of_different_depths(library):
    image = library.Input((8, 8, 3))
    early = library.layers.Conv2D(4, 1)(image)
    late = library.layers.Conv2D(4, 1)(library.layers.Activation("relu")(early))
    side = library.layers.GlobalMaxPooling2D()(library.layers.Conv2D(4, 1)(image))
    return library.Model(image, [side, early, library.layers.Flatten()(late)])


def inputs_that_never_meet(library):
    first, second = library.Input((4,)), library.Input((4,))
    return library.Model([first, second], [library.layers.Dense(2)(first), library.layers.Dense(3)(second)])


def unused_input(library):
    first, second = library.Input((4,)), library.Input((4,))
    return library.Model([first, second], library.layers.Dense(2)(second))


def layers_outside_the_model(library):
    image = library.Input((8, 8, 3))
    first = library.layers.Conv2D(2, 1)(image)
    library.layers.Conv2D(2, 1)(first)
    return library.Model(image, library.layers.Conv2D(2, 1)(first))


def nested(library):
    image = library.Input((8, 8, 3))
    features = library.layers.Conv2D(4, 3)(image)
    inner = library.Model(image, library.layers.Conv2D(4, 3)(features), name="inner")
    outer = library.Input((8, 8, 3), name="outer")
    features = inner(library.layers.Activation("tanh")(outer))
    return library.Model(outer, library.layers.Dense(2)(library.layers.GlobalAveragePooling2D()(features)))


def nested_with_two_outputs(library):
    image = library.Input((8, 8, 3))
    one = library.layers.Conv2D(4, 3, padding="same")(image)
    inner = library.Model(image, [one, library.layers.Activation("relu")(one)])
    outer = library.Input((8, 8, 3), name="outer")
    return library.Model(outer, library.layers.Add()(inner(outer)))


def nested_called_twice(library):
    vector = library.Input((4,))
    inner = library.Model(vector, library.layers.Dense(3)(vector), name="inner")
    first, second = library.Input((4,), name="first"), library.Input((4,), name="second")
    return library.Model([first, second], library.layers.Concatenate()([inner(first), inner(second)]))


def extended(library):
    base = chain(library)
    x = library.layers.Conv2D(4, 1)(base.get_layer("conv2d_1").output)
    return library.Model(base.input, library.layers.Dense(2)(x))


GRAPHS = [
    chain,
    branches_of_different_lengths,
    skip_connections,
    shortcut_made_last,
    shared_at_two_depths,
    shared_pooling_after_shared_layer,
    inputs_in_the_order_of_their_use,
    inputs_used_in_the_other_order,
    inputs_that_meet_after_layers_made_in_another_order,
    outputs_of_different_depths,
    inputs_that_never_meet,
    unused_input,
    layers_outside_the_model,
    layers_made_before_they_are_called,
    nested,
    nested_with_two_outputs,
    nested_called_twice,
    extended,
]


@pytest.mark.parametrize("build", GRAPHS, ids=lambda build: build.__name__)
def test_order_names_and_counts_are_those_of_a_fresh_keras_session(build):
    ours, theirs = build(flaxapps), build(fresh_keras())
    assert table(ours) == table(theirs)
    assert ours.output_shape == theirs.output_shape
    assert ours.count_params() == theirs.count_params()
    for layer, other in zip(ours.layers, theirs.layers, strict=True):
        if hasattr(layer.layer, "layers"):
            assert [inner.name for inner in layer.layers] == [inner.name for inner in other.layers]


KINDS = ("dense", "conv", "activation", "add", "concatenate", "shared")
NUMBERS = st.integers(0, 99)
RECIPES = {
    "recipe": st.lists(st.tuples(st.sampled_from(KINDS), NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=10),
    "ends": st.lists(NUMBERS, min_size=1, max_size=3),
    "inputs": st.integers(1, 3),
}


QUICKLY = settings(max_examples=8, deadline=None, derandomize=True, database=None, phases=[Phase.generate])


def random_graph(library, recipe, ends, inputs, named):
    """A graph of values of one shape; with `named`, every layer has a name of its own."""
    numbers = itertools.count()

    def name(kind):
        return f"{kind}_number_{next(numbers)}" if named else None

    layer = library.layers
    values = sources = [library.Input((4, 4, 2), name=name("input")) for _ in range(inputs)]
    shared = {}
    for kind, first, second, third in recipe:
        one, two = values[first % len(values)], values[second % len(values)]
        if kind == "add":
            new = layer.Add(name=name("add"))([one, two])
        elif kind == "concatenate":
            merged = layer.Concatenate(name=name("merge"))([one, two, values[third % len(values)]])
            new = layer.Conv2D(2, 1, name=name("conv"))(merged)
        elif kind == "shared":
            if third % 2 not in shared:
                shared[third % 2] = layer.Dense(2, name=name("shared"))
            new = shared[third % 2](one)
        elif kind == "dense":
            new = layer.Dense(2, name=name("dense"))(one)
        elif kind == "conv":
            new = layer.Conv2D(2, 3, padding="same", name=name("conv"))(one)
        else:
            new = layer.Activation("relu", name=name("relu"))(one)
        values = [*values, new]
    made = values[inputs:]
    outputs = list({id(node): node for node in (made[end % len(made)] for end in ends)}.values())
    return library.Model(sources, outputs)


@QUICKLY
@given(**RECIPES)
def test_random_graphs_are_in_keras_order(recipe, ends, inputs):
    ours, theirs = (random_graph(library, recipe, ends, inputs, named=True) for library in (flaxapps, fresh_keras()))
    assert table(ours) == table(theirs)


@QUICKLY
@given(**RECIPES)
def test_automatic_names_of_random_graphs_are_those_of_a_fresh_keras_session(recipe, ends, inputs):
    ours, theirs = (random_graph(library, recipe, ends, inputs, named=False) for library in (flaxapps, fresh_keras()))
    assert table(ours) == table(theirs)


def names(model):
    return [layer.name for layer in model.layers]


def test_names_do_not_depend_on_what_was_built_before():
    assert names(chain(flaxapps)) == names(chain(flaxapps))


def test_names_stay_when_a_model_is_cut():
    base = build_model("inception_v3", include_top=False)
    cut = Model(base.input, base.get_layer("mixed5").output)
    assert [layer for layer in names(base) if layer in names(cut)] == names(cut)
    assert len(cut.layers) == 165
    assert all(layer.layer is base.get_layer(layer.name).layer for layer in cut.layers)


def test_names_of_an_extension_do_not_collide():
    base = build_model("xception", include_top=False)
    before = names(base)
    x = layers.Conv2D(4, 1)(layers.Activation("relu")(base.output))
    extended = Model(base.input, layers.Dense(3)(layers.Dense(2)(x)))
    assert names(extended) == [*before, "activation", "conv2d_4", "dense_1", "dense"]  # the outer one is made first
    assert names(base) == before


def test_automatic_names_leave_given_ones_alone():
    x = Input((8, 8, 3))
    y = layers.Conv2D(2, 1, name="conv2d_1")(layers.Conv2D(2, 1)(x))
    assert names(Model(x, layers.Conv2D(2, 1)(y))) == ["input_layer", "conv2d", "conv2d_1", "conv2d_2"]


def test_two_networks_that_have_their_names_already_clash():
    first, second = chain(flaxapps), chain(flaxapps)
    outputs = layers.Add()([first.output, second.output])
    with pytest.raises(ValueError, match=r"unique.*'conv2d'.*Give them other names, or call the whole model as one"):
        Model([first.input, second.input], outputs)


def test_a_name_given_twice_is_an_error():
    x = Input((4,))
    with pytest.raises(ValueError, match=r"unique.*\['twice'\]"):
        Model(x, layers.Dense(2, name="twice")(layers.Dense(2, name="twice")(x)))


def test_missing_inputs_are_named():
    first, second = Input((4,), name="first"), Input((4,), name="second")
    output = layers.Add()([first, second])
    with pytest.raises(ValueError, match=r"depend on \['second'\], which `inputs` does not list"):
        Model(first, output)
    with pytest.raises(ValueError, match=r"depend on \['first'\]"):
        Model(Input((4,)), layers.Dense(2)(first))


@pytest.mark.parametrize("wrong", [[], [jnp.ones(3)], jnp.ones(3), "input_layer", 3, None])
def test_only_nodes_make_a_model(wrong):
    x = Input((4,))
    with pytest.raises(ValueError, match="Model takes Nodes"):
        Model(x, wrong)
    with pytest.raises(ValueError, match="Model takes Nodes"):
        Model(wrong, x)


@pytest.mark.parametrize("wrong", [[], jnp.ones((1, 4)), [jnp.ones((1, 4))], None])
def test_only_nodes_are_recorded(wrong):
    with pytest.raises(ValueError, match="Dense takes Nodes"):
        layers.Dense(2)(wrong)


def test_cut_at_an_intermediate_node_computes_the_rest():
    model = skip_connections(flaxapps)
    middle = model.get_layer("add").output
    head, tail = Model(model.input, middle), Model(middle, model.output)
    assert names(tail) == [name for name in names(model) if name not in names(head)]
    variables = model.init_variables()
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype(np.float32)
    halves = tail.apply(tail.init_variables(base=variables), head.apply(head.init_variables(base=variables), images))
    np.testing.assert_allclose(halves, model.apply(variables, images), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="'input_layer'"):
        Model(model.get_layer("conv2d").output, middle)  # the shortcut goes round the cut


def test_order_of_a_cut_is_that_of_keras():
    def cut(library):
        model = branches_of_different_lengths(library)
        return library.Model(model.input, [model.get_layer("conv2d_5").output, model.get_layer("conv2d_2").output])

    assert table(cut(flaxapps)) == table(cut(fresh_keras()))


def test_a_layer_called_twice_has_one_set_of_weights():
    model = shared_at_two_depths(flaxapps)
    shared = model.get_layer("shared")
    assert len(shared.calls) == 3
    assert [node.shape for node in shared.output] == shared.output_shape == [(None, 8, 8, 4)] * 3
    variables = model.init_variables()
    assert list(variables["params"]) == ["shared"]
    image = np.random.default_rng(0).normal(size=(1, 8, 8, 4)).astype(np.float32)
    one = Model(model.input, shared.output[0]).apply(variables, np.tanh(image))
    expected = Model(model.input, model.get_layer("shared").output[1]).apply(variables, image)
    assert one.shape == expected.shape
    both = {
        "params": {"shared": {"kernel": 0 * variables["params"]["shared"]["kernel"], "bias": np.ones(4, np.float32)}}
    }
    np.testing.assert_array_equal(model.apply(both, image), 2)


@pytest.mark.parametrize("build", GRAPHS, ids=lambda build: build.__name__)
def test_equal_graphs(build):
    first, second = build(flaxapps), build(flaxapps)
    assert first.graph == second.graph
    assert hash(first.graph) == hash(second.graph)
    assert first == second
    assert len({first, second, chain(flaxapps)}) == (1 if build is chain else 2)


def plain(activation="relu", training=None, units=3, size=4, order=(0, 1), dtype=None, name=None):
    x = Input((size,), dtype=dtype)
    y = layers.Dense(units)(x)
    z = layers.Activation(activation, name=name)(y, training=training)
    return Model(x, [(y, z)[index] for index in order]).graph


@pytest.mark.parametrize(
    "change",
    [
        {"activation": "tanh"},
        {"training": False},
        {"units": 4},
        {"size": 5},
        {"order": (1, 0)},
        {"order": (0,)},
        {"dtype": "bfloat16"},
        {"name": "other"},
    ],
    ids=str,
)
def test_graphs_that_compute_something_else_differ(change):
    assert plain() == plain()
    assert plain(**change) == plain(**change)
    assert plain(**change) != plain()


def test_models_differ_by_name_and_by_how_they_take_and_give():
    x = Input((4,))
    y = layers.Dense(3)(x)
    models = [Model(x, y), Model(x, y, name="title"), Model([x], y), Model(x, [y])]
    assert len(set(models)) == 4
    assert Model(x, y) == models[0]
    assert models[0] != "something else"


def test_what_is_outside_a_graph_does_not_count():
    first, second = chain(flaxapps), chain(flaxapps)
    layers.Dense(5)(second.output)
    assert first == second == Model(second.input, second.output)


def test_source_inputs():
    first, second = Input((4,)), Input((4,))
    y = layers.Dense(4)(second)
    assert source_inputs(layers.Add()([y, first])) == [second, first]
    assert source_inputs(y) == [second]
    assert source_inputs(first) == [first]


def test_a_very_deep_graph_does_not_recurse():
    x = image = Input((4,))
    for _ in range(3000):
        x = layers.Activation("relu")(x)
    model = Model(image, x)
    assert names(model)[-1] == "activation_2999"
    assert hash(model) == hash(Model(image, x))
    assert model == Model(image, x)
    assert source_inputs(x) == [image]
    assert model(Input((4,))).shape == (None, 4)


def test_a_pickled_model_is_the_same_model():
    model = chain(flaxapps)
    copy = pickle.loads(pickle.dumps(model))
    assert names(copy) == names(model)
    assert copy.get_layer("conv2d").output.layer.name == "conv2d"
    assert copy == model
    assert hash(copy) == hash(model)


def test_nodes_and_layers_show_what_they_are():
    model = chain(flaxapps)
    assert repr(model.get_layer("conv2d").output) == "<Node conv2d:0 shape=(None, 6, 6, 4)>"
    assert repr(model.get_layer("conv2d")) == "<Conv2D conv2d output_shape=(None, 6, 6, 4)>"
