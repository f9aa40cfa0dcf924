"""Groups of arguments of fit, and the keywords they replace."""

import inspect

import jax
import pytest

from flaxapps import train
from flaxapps.train.moved import MOVED
from tests.train.small import SGD, small_data, small_model


def given_by(monkeypatch, **options):
    """The arguments of a run that is not started."""
    import flaxapps.train.loop as loop

    monkeypatch.setattr(loop, "_fit", lambda given: given)
    model = small_model()
    return train.fit(model, model.init_variables(), small_data(4), optimizer=SGD, **options)


OLD = {"mesh": {"data": 8}, "shard_optimizer": True, "checkpoint_every": 3, "resume": True, "cache_limit": 5}
OLD |= {"accumulate": 2, "remat": True, "optimize_frozen": "fast"}


@pytest.mark.parametrize("name", OLD)
def test_old_keywords_say_what_to_write_and_do_the_same(name, monkeypatch):
    assert set(OLD) == set(MOVED)
    beside = {"checkpoint_dir": "run"} | ({"cache_features": True} if name == "cache_limit" else {})
    place = MOVED[name]
    with pytest.warns(DeprecationWarning, match=rf"{place.argument}=train.{place.group.__name__}\(..., {place.field}="):
        old = given_by(monkeypatch, **{name: OLD[name]}, **beside)
    first = {train.Devices: (), train.CheckpointFolder: ("run",)}.get(place.group, ())
    new = given_by(monkeypatch, **beside | {place.argument: place.group(*first, **{place.field: OLD[name]})})
    for field in ("devices", "checkpoints", "cache", "computation"):
        assert getattr(old, field) == getattr(new, field)


def test_the_old_keywords_are_not_in_the_signature(monkeypatch):
    assert not set(OLD) & set(inspect.signature(train.fit).parameters)
    with pytest.raises(TypeError, match="unexpected keyword"):
        given_by(monkeypatch, mash={"data": 8})
    with (
        pytest.warns(DeprecationWarning, match="CheckpointFolder"),
        pytest.raises(ValueError, match="need a checkpoint_dir"),
    ):
        given_by(monkeypatch, resume=True)


def test_plain_values_are_groups(monkeypatch):
    given = given_by(monkeypatch, devices=jax.devices()[:1], checkpoint_dir="run", cache_features=True)
    assert given.devices == train.Devices(jax.devices()[:1])
    assert given.checkpoints == train.CheckpointFolder("run")
    assert given.cache == train.FeatureCache()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: train.Devices.of(1), r"jax.devices\(\)\[:1\].*got 1"),
        (lambda: train.CheckpointFolder("run", every=0), "at least 1, got 0"),
        (lambda: train.CheckpointFolder("", resume=True), "checkpoint_dir"),
        (lambda: train.Computation(accumulate=0), "accumulate should be at least 1"),
    ],
)
def test_groups_check_what_they_are_given(make, says):
    with pytest.raises((TypeError, ValueError), match=says):
        make()
