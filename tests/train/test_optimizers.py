"""fit with optimizers whose state holds the parameters, that ask for the loss, and whose rates callbacks set."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from flaxapps import train
from tests.train.small import assert_close, assert_same, fit, small_data, small_model

DATA = small_data(36)
ONE = jax.devices()[:1]
MODEL = small_model()


def average_of_parameters(decay=0.9):
    def update(updates, state, params):
        return updates, jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state, params)

    return optax.GradientTransformation(lambda params: params, update)


def adversarial(**options):
    ascent = optax.chain(optax.contrib.normalize(), optax.sgd(0.05))
    return optax.contrib.sam(optax.sgd(0.05), ascent, **options)


OPTIMIZERS = {
    "sam": adversarial(),
    "opaque sam": adversarial(opaque_mode=True),
    "average": optax.chain(optax.sgd(0.05), average_of_parameters()),
    "prodigy": optax.contrib.prodigy(),
    "dog": optax.contrib.dog(1.0),
    "cocob": optax.contrib.cocob(),
    "plateau": optax.chain(optax.sgd(0.05), optax.contrib.reduce_on_plateau(patience=1)),
    "polyak": optax.polyak_sgd(),
    "momo": optax.contrib.momo(),
    "lbfgs": optax.lbfgs(linesearch=optax.scale_by_zoom_linesearch(3)),
    "backtracking": optax.chain(optax.sgd(0.1), optax.scale_by_backtracking_linesearch(3)),
}
FAST = ("sam", "cocob", "polyak")


def by_hand(model, optimizer, images, labels, steps):
    """Optax as its documentation shows it, without donation."""
    variables = model.init_variables()
    params, statistics = variables["params"], variables["batch_stats"]

    def loss(params, statistics):
        variables = {"params": params, "batch_stats": statistics}
        outputs, updates = model.apply(variables, images, train=True, mutable=["batch_stats"])
        return jnp.mean(optax.losses.softmax_cross_entropy_with_integer_labels(jnp.log(outputs), labels)), updates

    @jax.jit
    def step(params, statistics, state):
        def value_fn(params):
            return loss(params, statistics)[0]

        (value, updates), gradients = jax.value_and_grad(loss, has_aux=True)(params, statistics)
        extra = {"value": value, "grad": gradients, "value_fn": value_fn}
        extra = extra if "sam" not in name_of[optimizer] else {"grad_fn": lambda params, _: jax.grad(value_fn)(params)}
        with jax.numpy_dtype_promotion("standard"):
            update = optax.with_extra_args_support(optimizer).update
            changes, state = update(gradients, state, params, **extra)
        return optax.apply_updates(params, changes), updates["batch_stats"], state

    state = optimizer.init(params)
    for _ in range(steps):
        params, statistics, state = step(params, statistics, state)
    return params


name_of = {optimizer: name for name, optimizer in OPTIMIZERS.items()}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in OPTIMIZERS]
)
def test_an_optimizer_gets_what_it_asks_for(name):
    """One buffer in two places of a state could not be donated; `value`, `grad` and `value_fn` were missing."""
    optimizer, (images, labels) = OPTIMIZERS[name], (DATA[0][:16], DATA[1][:16])
    result, _ = fit((images, labels), MODEL, optimizer=optimizer, epochs=3, devices=ONE)
    ordered = np.argsort(labels)  # the loss of a batch does not depend on its order, but for rounding
    assert_close(result.state.params, by_hand(MODEL, optimizer, images[ordered], labels[ordered], 3), 2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["jit", "pmap"])
@pytest.mark.parametrize("name", ["lbfgs", "backtracking", "opaque sam", "polyak"])
def test_on_eight_devices_and_in_parts_as_on_one(name, parallel):
    frozen = frozenset({"norm1", "norm2"})  # statistics are those of each part
    options = {"optimizer": OPTIMIZERS[name], "frozen": frozen, "epochs": 2}
    one, _ = fit(DATA, MODEL, devices=ONE, **options)
    many, _ = fit(DATA, MODEL, parallel=parallel, computation=train.Computation(accumulate=2), **options)
    assert_close(many.state.params, one.state.params, 1e-4)


def injected(rate=0.05):
    return optax.inject_hyperparams(optax.sgd)(learning_rate=rate, momentum=0.9)


def halve(event):
    return {"learning_rate": 0.5 * event.values["learning_rate"]} if isinstance(event, train.EpochEnd) else None


def set_rate(event):
    return {"learning_rate": 0.01} if isinstance(event, train.EpochEnd) else None


def test_a_callback_sets_the_rate_and_a_resumed_run_has_it(tmp_path):
    def schedule(step):
        return 0.05 * 0.5 ** (step // 3)

    wanted, _ = fit(DATA, MODEL, epochs=3, optimizer=optax.sgd(schedule, momentum=0.9))
    whole, _ = fit(DATA, MODEL, epochs=3, optimizer=injected(), callbacks=[halve])
    np.testing.assert_allclose(whole.history["learning_rate"], [0.05, 0.025, 0.0125])
    assert_close(whole.variables, wanted.variables, 1e-6)
    options = {"optimizer": injected(), "callbacks": [halve]}
    fit(DATA, MODEL, epochs=2, checkpoint_dir=tmp_path, **options)
    result, _ = fit(DATA, MODEL, epochs=3, checkpoint_dir=train.CheckpointFolder(tmp_path, resume=True), **options)
    assert_same(result.variables, whole.variables)


@pytest.mark.parametrize(
    ("optimizer", "says"),
    [
        (optax.sgd(0.05), r"not stored in the optimizer.*optax.inject_hyperparams\(optax.adam\)\(learning_rate=0.01\)"),
        (injected(optax.linear_schedule(0.1, 0, 9)), "'learning_rate', which is a schedule in the optimizer"),
    ],
    ids=["plain", "schedule"],
)
def test_a_rate_that_cannot_be_set_is_an_error(optimizer, says):
    with pytest.raises(ValueError, match=says):
        fit(DATA, MODEL, optimizer=optimizer, callbacks=[set_rate])
    with pytest.raises(ValueError, match="after an epoch, not after a step"):
        fit(DATA, MODEL, optimizer=optimizer, callbacks=[lambda event: {"learning_rate": 0.01}])
