"""Where a new head goes, and what is frozen under it."""

import pytest

from flaxapps import Input, Model, layers
from flaxapps.cli.finetune.head import feature_node, put_head
from flaxapps.train.freezing.frozen import frozen_until


def nested() -> Model:
    inside, image = Input((8, 8, 3)), Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="a")(inside)
    trunk = Model(inside, layers.Conv2D(4, 3, name="b")(x), name="trunk")
    x = layers.GlobalAveragePooling2D(name="pool")(trunk(layers.Conv2D(3, 1, name="stem")(image)))
    return Model(image, layers.Dense(5, name="old")(x), name="whole")


def test_the_old_classifier_is_left_out():
    model = nested()
    new = put_head(feature_node(model), model.input, classes=7, units=0)
    assert [layer.name for layer in new.layers][1:3] == ["stem", "trunk"]
    assert new.output_shape == (None, 7)
    assert "old" not in new.init_variables()["params"]
    named = put_head(feature_node(model, "pool"), model.input, classes=7, units=6, dropout=0.5)
    assert [layer.class_name for layer in named.layers][-4:] == ["GlobalAveragePooling2D", "Dense", "Dropout", "Dense"]


def test_frozen_inside_a_nested_model():
    model = nested()
    assert {"stem", "trunk/a"} < frozen_until(model, "trunk/a")
    assert not frozen_until(model, "trunk/a") & {"trunk", "trunk/b", "old"}
    assert frozen_until(model, "trunk") > {"stem", "trunk"}
    assert len(frozen_until(model, 2)) == 2


@pytest.mark.parametrize("until", ["trunk/c", "nothing/a", "stem/a", "trunk/a/b", "nothing"])
def test_no_such_layer(until: str):
    with pytest.raises(ValueError, match=r"[Nn]o layer"):
        frozen_until(nested(), until)


def test_nothing_to_build_on():
    x = Input((4,))
    model = Model(x, layers.Dense(3, name="only")(x), name="flat")
    with pytest.raises(ValueError, match="name the layer to build on"):
        feature_node(model)
    assert feature_node(model, "only").shape == (None, 3)
    with pytest.raises(ValueError, match="No layer is called"):
        feature_node(model, "other")
