"""What devices send each other in a training step, read in the program XLA compiled for 1, 2, 4 and 8 of them."""

import math
import re

import jax
import pytest

from flaxapps import train
from flaxapps.train.devices.placement import place_on_devices
from tests.train.small import SGD, small_data, small_model

NORMS, CHANNELS = 2, 4  # of the small model
COLLECTIVE = re.compile(r" = (.+?) (all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute)(?:-start)?\(")


def collectives(devices, frozen=frozenset(), **options):
    """(kind, how many numbers) of each collective in the compiled step, and how many parameters train."""
    model = small_model()
    placement = place_on_devices("jit", 16, jax.devices()[:devices], **options)
    state = placement.replicate(train.create_state(model, model.init_variables(), SGD, frozen))
    lowered = train.train_step.lower(
        state.replace(frozen_params={}),
        *placement.shard_batch(*small_data(16)),
        state.frozen_params,
        layout=placement.layout,
        objective=train.make_objective(model, "categorical_crossentropy"),
        optimizer=SGD,
        frozen=frozen,
        metrics=("accuracy",),
    )
    found = [(kind, numbers(shapes)) for shapes, kind in COLLECTIVE.findall(lowered.compile().as_text())]
    return found, sum(leaf.size for leaf in jax.tree.leaves(state.params))


def numbers(shapes):
    """Of "f32[4]{0}" or "(f32[3,3]{1,0}, s32[])", how many numbers it holds."""
    return sum(math.prod(map(int, filter(None, sizes.split(",")))) for sizes in re.findall(r"\w\[([\d,]*)\]", shapes))


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
def test_a_step_sends_gradients_once_and_moments_where_they_are_needed(devices):
    """What theory says, and the same for any number of devices, so that the cost of a step stays as they grow.

    A layer of BatchNormalization needs sums over the whole batch four times, each before the next can be computed: the
    mean, the variance around it, in the backward pass the gradients of offset and scale together, then that of the
    mean. These are 5 numbers for each channel, of which 2 are gradients of its own parameters. XLA combines the
    gradients of all other parameters, which nothing waits for, with the loss into one; the number of right answers is
    one of its own, since it is an integer.
    """
    found, parameters = collectives(devices)
    if devices == 1:
        assert found == []
        return
    assert {kind for kind, _ in found} == {"all-reduce"}
    assert len(found) == 4 * NORMS + 2
    assert sum(count for _, count in found) == parameters + 3 * CHANNELS * NORMS + 2
    assert max(count for _, count in found) == parameters - 2 * CHANNELS * NORMS + 1


def test_frozen_layers_send_nothing():
    """Left are the gradients of the head with the loss, and the number of right answers."""
    frozen = train.frozen_layers(small_model(), until="norm2")
    found, parameters = collectives(8, frozen)
    assert sorted(found) == [("all-reduce", 1), ("all-reduce", parameters + 1)]


def test_a_sharded_optimizer_gathers_what_it_has_moved():
    """Arrays whose momentum is cut are gathered: those with an axis that divides by 8 devices, here none, by 4 all.

    XLA cuts the product of the head along with its momentum, so that a little more is gathered.
    """
    moved, _ = collectives(8, shard_optimizer=True)
    assert "all-gather" not in {kind for kind, _ in moved}
    moved, parameters = collectives(4, shard_optimizer=True)
    assert parameters <= sum(count for kind, count in moved if kind == "all-gather") < 1.5 * parameters
