"""A run that was killed resumes to the last bit, with everything at once that has a state or random numbers."""

import subprocess
import sys

import jax
import optax
import pytest

from flaxapps import train
from tests.places import ROOT
from tests.train.small import assert_same, fit, small_data, small_model

AUGMENTATION = train.Augmentation(flip=True, erasing=0.5, mixup=0.4, cutmix=1.0, value_range=(-3, 5))
COMPUTATION = train.Computation(accumulate=2, loss_scaling=True)
CODE = """
import sys, time
from flaxapps import train
from tests.train.updates.test_killed import run
def tell(event):
    print("step", flush=True)
    time.sleep(0.3)
run(sys.argv[1], [tell])
"""


def run(folder, callbacks=()):
    schedule = optax.warmup_cosine_decay_schedule(0.0, 0.05, 3, 12)
    return fit(
        small_data(40),
        small_model(dropout=0.5),
        optimizer=train.averaged(optax.adamw(schedule, mask=train.weight_decay_mask), 0.9),
        epochs=4,
        validation_data=small_data(12, seed=1),
        augmentation=AUGMENTATION,
        computation=COMPUTATION,
        devices=jax.devices()[:1],
        checkpoint_dir=train.CheckpointFolder(folder, every=1, resume=True),
        callbacks=callbacks,
    )[0]


@pytest.mark.slow
def test_killed_and_resumed(tmp_path):
    whole = run(tmp_path / "whole")
    process = subprocess.Popen([sys.executable, "-c", CODE, tmp_path / "parts"], stdout=subprocess.PIPE, cwd=ROOT)
    for _ in range(5):
        assert process.stdout.readline()
    process.kill()
    process.wait()
    process.stdout.close()
    steps = [int(path.name) for path in (tmp_path / "parts").iterdir() if path.name.isdigit()]
    assert steps
    assert max(steps) < 12
    result = run(tmp_path / "parts")
    assert_same(jax.device_get(result.variables), jax.device_get(whole.variables))
    assert_same(jax.device_get(result.state.params), jax.device_get(whole.state.params))
    assert result.history == whole.history
