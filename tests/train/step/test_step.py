"""Steps: against Keras's fit, frozen layers that stand still and cost nothing, accumulation, masks, dropout."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import weight_port
from flaxapps import Input, Model, layers, train
from tests.imported import randomise
from tests.train import small

BATCHES, BATCH, CLASSES = 10, 8, 4
FROZEN = frozenset({"conv1", "norm1"})
RANDOM = np.random.default_rng(3)
IMAGES = RANDOM.normal(0, 1, (BATCHES * BATCH, 8, 8, 3)).astype("float32")
LABELS = RANDOM.integers(0, CLASSES, BATCHES * BATCH).astype("int32")  # what JAX has without x64
SGD = optax.sgd(0.05, momentum=0.9)


def small_model(norm=True, dropout=0.0):
    x = y = Input((8, 8, 3), name="image")
    for block in (1, 2):
        y = layers.Conv2D(6, 3, activation="relu", name=f"conv{block}")(y)
        y = layers.BatchNormalization(name=f"norm{block}")(y) if norm else y
    y = layers.GlobalAveragePooling2D(name="pool")(y)
    y = layers.Dropout(dropout, name="drop")(y) if dropout else y
    return Model(x, layers.Dense(CLASSES, activation="softmax", name="head")(y))


def batches():
    for start in range(0, len(IMAGES), BATCH):
        yield jnp.asarray(IMAGES[start : start + BATCH]), jnp.asarray(LABELS[start : start + BATCH])


def objective_of(model, **options):
    return train.make_objective(model, "sparse_categorical_crossentropy", **options)


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def close(one, other, tolerance=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), one, other)


@pytest.mark.parametrize("frozen", [frozenset(), FROZEN], ids=["unfrozen", "frozen"])
def test_ten_steps_are_those_of_keras_fit(frozen, tmp_path):
    import keras

    x = y = keras.Input((8, 8, 3), name="image")
    for block in (1, 2):
        y = keras.layers.Conv2D(6, 3, activation="relu", name=f"conv{block}")(y)
        y = keras.layers.BatchNormalization(name=f"norm{block}")(y)
    y = keras.layers.GlobalAveragePooling2D(name="pool")(y)
    reference = keras.Model(x, keras.layers.Dense(CLASSES, activation="softmax", name="head")(y))
    randomise(reference)
    model = small_model()
    reference.save_weights(tmp_path / "before.weights.h5")
    variables = weight_port.load_weights(tmp_path / "before.weights.h5", model)
    for name in frozen:
        reference.get_layer(name).trainable = False
    weights = {0: 2.0, 2: 0.5}
    wanted = []
    with jax.numpy_dtype_promotion("standard"):
        reference.compile(keras.optimizers.SGD(0.05, momentum=0.9), "sparse_categorical_crossentropy")
        for start in range(0, len(IMAGES), BATCH):
            rows = slice(start, start + BATCH)
            history = reference.fit(
                IMAGES[rows], LABELS[rows], batch_size=BATCH, shuffle=False, verbose=0, class_weight=weights
            )
            wanted.append(history.history["loss"][0])
    reference.save_weights(tmp_path / "after.weights.h5")

    objective = objective_of(model, class_weights=weights)
    state = train.create_state(model, variables, SGD, frozen)
    losses = []
    for images, labels in batches():
        state, sums = train.train_step(state, images, labels, objective=objective, optimizer=SGD, frozen=frozen)
        losses.append(train.summarise(sums)["loss"])
    np.testing.assert_allclose(losses, wanted, rtol=1e-4)
    close(state.variables, weight_port.load_weights(tmp_path / "after.weights.h5", model), 1e-4)
    assert state.step == BATCHES
    for name in frozen:
        for collection in variables:
            if name in variables[collection]:
                same(state.variables[collection][name], variables[collection][name])


def test_optimizer_state_holds_no_frozen_leaf():
    model = small_model()
    state = train.create_state(model, model.init_variables(), optax.adam(1e-3), FROZEN)
    paths = {jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state.optimizer_state)}
    assert any("conv2" in path for path in paths)
    assert not any(name in path for path in paths for name in FROZEN)


def convolutions(frozen):
    model = small_model()
    state = train.create_state(model, model.init_variables(), SGD, frozen)
    images, labels = next(batches())
    options = {"objective": objective_of(model), "optimizer": SGD, "frozen": frozen}
    return train.train_step.lower(state, images, labels, **options).as_text().count("stablehlo.convolution")


def test_the_backward_pass_has_no_convolution_of_frozen_layers():
    assert convolutions(train.frozen_layers(small_model(), until="pool")) == 2  # forward only
    assert convolutions(FROZEN) == 3  # and the gradient of the second kernel, but none of its input
    assert convolutions(frozenset()) == 2 + 3


@pytest.mark.parametrize("remat", [False, True])
def test_accumulation_and_remat_change_nothing(remat):
    model = small_model(norm=False)
    variables = model.init_variables()
    images, labels = next(batches())
    mask = jnp.arange(BATCH) < 5  # parts of unequal weight
    options = {"objective": objective_of(model), "optimizer": SGD, "metrics": ("accuracy", "confusion_matrix")}
    whole, whole_sums = train.train_step(train.create_state(model, variables, SGD), images, labels, mask, **options)
    split, split_sums = train.train_step(
        train.create_state(model, variables, SGD), images, labels, mask, accumulate=4, remat=remat, **options
    )
    close(split.params, whole.params, 1e-6)
    close(split.optimizer_state, whole.optimizer_state, 1e-6)
    close(split_sums, whole_sums)
    with pytest.raises(ValueError, match="accumulate=3"):
        train.train_step(train.create_state(model, variables, SGD), images, labels, accumulate=3, **options)


def test_a_masked_batch_is_the_shorter_batch():
    model = small_model()
    variables = model.init_variables()
    images, labels = next(batches())
    options = {"objective": objective_of(model), "metrics": ("accuracy", "top_5_accuracy", "confusion_matrix")}
    short = train.eval_step(variables, images[:5], labels[:5], **options)
    padded = train.eval_step(variables, images, labels, jnp.arange(BATCH) < 5, **options)
    close(padded, short, 1e-6)
    assert padded["loss"].count == 5
    still = train.frozen_layers(model, names=["norm1", "norm2"])  # statistics of a batch see what fills it
    options = {"objective": objective_of(model), "optimizer": SGD, "frozen": still}
    first, _ = train.train_step(train.create_state(model, variables, SGD, still), images[:5], labels[:5], **options)
    mask = jnp.arange(BATCH) < 5
    second, _ = train.train_step(train.create_state(model, variables, SGD, still), images, labels, mask, **options)
    close(second.params, first.params, 1e-6)
    same(second.batch_stats, variables["batch_stats"])


def test_dropout_follows_the_seed_and_the_step():
    model = small_model(dropout=0.5)
    images, labels = next(batches())
    still = optax.sgd(0.0)
    options = {"objective": objective_of(model), "optimizer": still}

    def losses(seed):
        state = train.create_state(model, model.init_variables(), still, seed=seed)
        values = []
        for _ in range(2):
            state, sums = train.train_step(state, images, labels, **options)
            values.append(float(sums["loss"].total))
        return values

    assert losses(0) == losses(0)
    assert losses(0) != losses(1)
    assert len(set(losses(0))) == 2


def test_variables_given_stay_usable_and_steps_compile_once():
    model = small_model()
    variables = model.init_variables()
    state = train.create_state(model, variables, SGD)
    size = train.train_step._cache_size()
    for images, labels in list(batches())[:3]:
        objective = objective_of(small_model())  # equal, not the same
        state, _ = train.train_step(state, images, labels, objective=objective, optimizer=SGD)
    assert train.train_step._cache_size() <= size + 1
    assert np.isfinite(model.apply(variables, images)).all()


@pytest.mark.parametrize("accumulate", [1, 2])
def test_eight_devices_compute_what_one_does(accumulate):
    model = small_model()
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    everywhere, by_example = (jax.sharding.NamedSharding(mesh, jax.P(*axes)) for axes in [(), ("batch",)])
    options = {"objective": objective_of(model), "optimizer": SGD, "accumulate": accumulate}
    one = train.create_state(model, model.init_variables(), SGD)
    eight = jax.device_put(train.create_state(model, model.init_variables(), SGD), everywhere)
    for index in range(2):
        rows = slice(index * 16, index * 16 + 16)
        batch = jnp.asarray(IMAGES[rows]), jnp.asarray(LABELS[rows])
        one, sums = train.train_step(one, *batch, **options)
        eight, sums_of_eight = train.train_step(eight, *jax.device_put(batch, by_example), **options)
        close(sums_of_eight, sums)
    close(eight.variables, one.variables)


def test_everything_frozen_is_an_error():
    model = small_model()
    with pytest.raises(ValueError, match="No parameter"):
        train.create_state(model, model.init_variables(), SGD, frozenset(layer.name for layer in model.layers))
    with pytest.raises(ValueError, match="nowhere"):
        train.create_state(model, model.init_variables(), SGD, frozenset({"nowhere"}))


def test_a_state_that_a_step_cannot_take_is_named():
    model = small.small_model()
    images, labels = map(jnp.asarray, small.small_data(8))
    options = {"objective": train.make_objective(model, "sparse_categorical_crossentropy"), "optimizer": SGD}
    state = train.create_state(model, model.init_variables(), SGD, frozenset({"conv1"}))
    with pytest.raises(ValueError, match="created with conv1 frozen, not with none: give create_state and train_step"):
        train.train_step(state, images, labels, **options)
    with pytest.raises(ValueError, match="created with conv1 frozen, not with conv1, conv2"):
        train.train_step(state, images, labels, frozen=frozenset({"conv1", "conv2"}), **options)
    with pytest.raises(ValueError, match="arrays of another optimizer"):
        train.train_step(state, images, labels, frozen=frozenset({"conv1"}), **options | {"optimizer": optax.adam(0.1)})
    train.train_step(state, images, labels, frozen=frozenset({"conv1"}), **options)
    with pytest.raises(ValueError, match=r"used by an earlier step.* continue with the state that the step returned"):
        train.train_step(state, images, labels, frozen=frozenset({"conv1"}), **options)
