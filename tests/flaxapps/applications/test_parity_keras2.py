"""Outputs of the real Keras 2.0.4, through a weight file with Keras 2's names."""

import h5py
import pytest

import flaxapps
import weight_port
from flaxapps.layers import GlobalAveragePooling2D, GlobalMaxPooling2D
from flaxapps.registry import build_model
from tests.arrays import read_npz
from tests.golden import recipe
from tests.networks import GOLDEN, golden_layers
from tests.recipe import relative_difference

NETWORKS = [("xception", ""), ("vgg16", ""), ("vgg19", ""), ("resnet50", "keras2"), ("inception_v3", "")]
TOLERANCE = 1e-5


def write_keras2_weights(path, key, seed):
    """What `save_weights` of Keras 2.0.4 writes, with the arrays of the recipe."""
    with h5py.File(path, "w") as file:
        rows = golden_layers("keras_2_0_4")[key]
        file.attrs["layer_names"] = [name.encode() for name, *_ in rows]
        file.attrs["backend"] = b"tensorflow"
        file.attrs["keras_version"] = b"2.0.4"
        for index, (layer, _, _, weights) in enumerate(rows):
            group = file.create_group(layer)
            group.attrs["weight_names"] = [name.encode() for name, _ in weights]
            for number, (name, shape) in enumerate(weights):
                group[name] = recipe.weight(seed, index, number, name, shape)


@pytest.mark.parametrize(
    ("name", "variant"),
    [row if row[1] else pytest.param(*row, marks=pytest.mark.slow) for row in NETWORKS],  # no other test has variants
)
def test_features(name, variant, tmp_path):
    golden = read_npz(GOLDEN / "keras_2_0_4" / f"{name}_notop.npz")
    size = int(golden["size"])
    write_keras2_weights(tmp_path / "weights.h5", f"{name}_notop", int(golden["seed"]))
    model = build_model(name, variant=variant, include_top=False, input_shape=(size, size, 3))
    variables = weight_port.load_weights(tmp_path / "weights.h5", model)
    middle = model.get_layer(str(golden["mid"])).output
    means = [GlobalAveragePooling2D()(model.output), GlobalMaxPooling2D()(model.output)]
    several = flaxapps.Model(model.input, [model.output, *means, GlobalAveragePooling2D()(middle)])
    features, mean, maximum, middle_mean = flaxapps.predict(
        several, variables, recipe.image(int(golden["seed"]), (2, size, size, 3))
    )
    if features.shape != golden["features"].shape:
        features = features[:, ::3, ::3]
    assert tuple(golden["mid_shape"][1:]) == middle.shape[1:]
    for ours, key in [(features, "features"), (mean, "avg"), (maximum, "max"), (middle_mean, "mid_avg")]:
        assert relative_difference(ours, golden[key]) <= TOLERANCE, key


@pytest.mark.slow
@pytest.mark.parametrize(("name", "variant"), NETWORKS)
def test_predictions(name, variant, tmp_path):
    golden = read_npz(GOLDEN / "keras_2_0_4" / f"{name}_top.npz")
    size = int(golden["size"])
    write_keras2_weights(tmp_path / "weights.h5", f"{name}_top", int(golden["seed"]))
    images = recipe.image(int(golden["seed"]), (2, size, size, 3))
    for activation, key in [("softmax", "probs"), (None, "logits")]:
        model = build_model(name, variant=variant, classifier_activation=activation)
        variables = weight_port.load_weights(tmp_path / "weights.h5", model)
        ours = flaxapps.predict(model, variables, images)
        assert relative_difference(ours, golden[key]) <= TOLERANCE, key
    (tmp_path / "weights.h5").unlink()
