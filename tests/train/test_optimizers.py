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


@pytest.mark.parametrize("reset", [False, True])
def test_lookahead_is_returned_at_its_slow_parameters(reset, tmp_path):
    """As its example in Optax, by hand; resumed from checkpoints to the last bit."""
    optimizer = optax.lookahead(optax.sgd(0.05, momentum=0.9), 3, 0.5, reset_state=reset)
    images, labels = DATA[0][:16], DATA[1][:16]
    variables = MODEL.init_variables()
    pair, statistics = optax.LookaheadParams.init_synced(variables["params"]), variables["batch_stats"]

    def loss(params, statistics):
        variables = {"params": params, "batch_stats": statistics}
        outputs, updates = MODEL.apply(variables, images, train=True, mutable=["batch_stats"])
        picked = jnp.log(jnp.take_along_axis(outputs, labels[:, None], axis=1))
        return -picked.mean(), updates["batch_stats"]

    differentiate, state = jax.jit(jax.grad(loss, has_aux=True)), optimizer.init(pair)
    with jax.numpy_dtype_promotion("standard"):
        for _ in range(4):
            gradients, statistics = differentiate(pair.fast, statistics)
            changes, state = optimizer.update(gradients, state, pair)
            pair = optax.apply_updates(pair, changes)
    options = {"optimizer": optimizer, "devices": ONE}
    found, _ = fit((images, labels), MODEL, epochs=4, **options)
    assert_close(found.variables["params"], pair.slow, 1e-5)
    assert_close(found.state.params, pair.fast, 1e-5)
    value = train.evaluate(MODEL, found.variables, (images, labels))["loss"]
    best = train.EarlyStopping("loss", patience=9)  # of epoch 3
    watched, _ = fit(
        (images, labels), MODEL, epochs=4, validation_data=(images, labels), early_stopping=best, **options
    )
    assert watched.history["val_loss"][-1] == pytest.approx(value, rel=1e-5)
    assert_same(watched.variables["params"], found.variables["params"])
    fit((images, labels), MODEL, epochs=2, checkpoint_dir=tmp_path, **options)
    checkpoints = train.CheckpointFolder(tmp_path, resume=True)
    resumed, _ = fit((images, labels), MODEL, epochs=4, checkpoint_dir=checkpoints, **options)
    assert_same(resumed.variables, found.variables)


def test_lookahead_inside_another_optimizer_is_an_error():
    inside = optax.chain(optax.clip(1.0), optax.lookahead(optax.sgd(0.1), 3, 0.5))
    with pytest.raises(ValueError, match=r"optax.lookahead\(optax.chain\(...\), 5, 0.5\)"):
        fit(DATA, MODEL, optimizer=inside)


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


@pytest.mark.slow
def test_another_rate_of_an_optimizer_that_asks_for_the_loss_is_noticed(tmp_path):
    options = {"checkpoint_dir": tmp_path, "devices": ONE}
    fit(DATA, MODEL, optimizer=optax.polyak_sgd(scaling=0.5), **options)
    options["checkpoint_dir"] = train.CheckpointFolder(tmp_path, resume=True)
    with pytest.warns(UserWarning, match="first steps of the optimizer"):
        fit(DATA, MODEL, epochs=2, optimizer=optax.polyak_sgd(scaling=0.25), **options)
