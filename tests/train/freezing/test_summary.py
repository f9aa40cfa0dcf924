"""What trains is counted as in the model itself."""

import jax
import numpy as np

from flaxapps import Input, Model, layers, train
from tests.train.small import fit, small_data, small_model


def test_counts_are_those_of_the_arrays():
    model = small_model()
    params = model.init_variables()["params"]
    frozen = train.frozen_layers(model, until="conv2")
    summary = train.summarise_training(model, frozen)
    trainable, _ = train.split_params(params, frozen)
    assert summary.trainable == tuple(
        name for name in ("conv1", "norm1", "conv2", "norm2", "head") if name in trainable
    )
    assert summary.trainable_parameters == sum(leaf.size for leaf in jax.tree.leaves(trainable))
    assert summary.parameters == sum(leaf.size for leaf in jax.tree.leaves(params))
    assert str(summary).splitlines() == [
        f"2 of 5 layers train, {summary.trainable_parameters} of {summary.parameters} parameters: norm2 to head",
        "1 of 2 layers update their moving statistics: norm2",
    ]


def test_statistics_that_move_are_those_that_are_named():
    model, data = small_model(), small_data(16)
    frozen = frozenset({"norm1", "conv2"})
    result, _ = fit(data, model, frozen=frozen)
    before = model.init_variables()["batch_stats"]
    moved = {
        name
        for name in before
        if not np.array_equal(before[name]["mean"], result.variables["batch_stats"][name]["mean"])
    }
    summary = train.summarise_training(model, frozen)
    assert set(summary.moving) == moved == {"norm2"}
    assert "conv1, norm2 to head" in str(summary)


def test_nested_models_and_layers_that_were_adapted():
    inside, image = Input((8, 8, 3)), Input((8, 8, 3))
    x = layers.BatchNormalization(name="norm")(layers.Conv2D(4, 3, name="stem")(inside))
    trunk = Model(inside, x, name="trunk")
    y = trunk(layers.Normalization(name="adapted")(image))
    model = Model(image, layers.Dense(2, name="head")(layers.GlobalAveragePooling2D()(y)))
    summary = train.summarise_training(model, {"trunk"})
    assert (summary.trainable, summary.statistics, summary.moving) == (("head",), ("trunk/norm",), ())
    assert str(summary).endswith("\n0 of 1 layers update their moving statistics")
    assert "\n" not in str(train.summarise_training(Model(inside, trunk.get_layer("stem").output)))


def test_fit_begins_with_it(capsys):
    model = small_model()
    fit(small_data(16), model, verbose=True)
    assert capsys.readouterr().err.startswith(str(train.summarise_training(model)))
