"""What is left of a run that an error or a signal ends: the exception carries the result."""

import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import optax
import pytest

from flaxapps import train
from flaxapps.train.errors import NOTHING_LEFT
from tests.places import ROOT
from tests.train.small import assert_same, fit, small_data, small_model

IMAGES, LABELS = DATA = small_data(36)
MODEL = small_model()


class UserError(Exception):
    pass


def fail_at(step):
    def fail(event):
        if isinstance(event, train.StepEnd) and event.step == step:
            raise UserError

    return fail


def keep_in(kept):
    return lambda event: kept.append(jax.device_get(event.variables)) if isinstance(event, train.EpochEnd) else None


def test_an_exception_of_a_callback_carries_the_training_so_far():
    with pytest.raises(UserError) as error:
        fit(DATA, MODEL, epochs=3, callbacks=[fail_at(4)])
    result = error.value.result
    assert "`result` of this exception" in error.value.__notes__[0]
    assert (result.stopped, len(result.history["loss"])) == ("error", 1)
    train.evaluate(MODEL, result.variables, DATA)
    fit(DATA, MODEL, variables=result.state, initial_epoch=1, epochs=2)


def test_early_stopping_keeps_the_best_arrays_through_nan():
    kept = []
    rates = optax.piecewise_constant_schedule(0.02, {6: 1e30})  # good for two epochs
    with pytest.raises(train.TrainingError, match="loss is nan") as error:
        fit(DATA, MODEL, epochs=9, optimizer=optax.sgd(rates), callbacks=[keep_in(kept)],
            early_stopping=train.EarlyStopping("loss", patience=9))  # fmt: skip # kept on few lines on purpose
    result = error.value.result
    assert result.best_epoch == 1
    assert_same(jax.device_get(result.variables), kept[1])


def test_nan_goes_back_to_the_last_checkpoint(tmp_path):
    rates = optax.piecewise_constant_schedule(0.02, {3: 1e30})
    kept = []
    options = {"epochs": 9, "optimizer": optax.sgd(rates), "callbacks": [keep_in(kept)]}
    with pytest.raises(train.TrainingError, match="loss is nan") as error:
        fit(DATA, MODEL, checkpoint_dir=tmp_path, **options)
    assert len(error.value.__notes__) == 1
    assert error.value.result.steps == 3
    assert_same(jax.device_get(error.value.result.variables), kept[0])
    with pytest.raises(train.DivergenceError) as error:
        fit(DATA, MODEL, **options)
    assert error.value.result is None
    assert error.value.__notes__ == [NOTHING_LEFT]


def test_an_unreadable_batch_carries_the_training_so_far():
    def batches():
        yield DATA
        yield DATA
        raise OSError("photo 73.jpg cannot be read")

    with pytest.raises(OSError, match=r"73.jpg") as error:
        fit(batches, MODEL)
    assert error.value.result.steps == 2


def test_an_error_before_the_first_step_has_no_result():
    with pytest.raises(ValueError, match="channels first") as error:
        fit((np.moveaxis(IMAGES, -1, 1), LABELS), MODEL)
    assert not hasattr(error.value, "result")


def test_ctrl_c_does_not_wait_for_data(tmp_path):
    """A second of data that never comes: the run is saved and ends at once."""

    def batches():
        yield DATA
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(100)

    start = time.monotonic()
    with pytest.raises(train.Interrupted) as stopped:
        fit(batches, MODEL, checkpoint_dir=tmp_path)
    assert time.monotonic() - start < 50
    assert stopped.value.result.steps == 1
    assert stopped.value.checkpoint == tmp_path / "1"


def test_ctrl_c_while_validating_saves_the_epoch(tmp_path):
    sent = []

    def validation():
        if not sent:
            sent.append(True)
            os.kill(os.getpid(), signal.SIGINT)
        yield DATA

    options = {"validation_data": validation, "epochs": 2}
    with pytest.raises(train.Interrupted) as stopped:
        fit(DATA, MODEL, checkpoint_dir=tmp_path, **options)
    assert stopped.value.result.steps == 3
    resumed, losses = fit(DATA, MODEL, checkpoint_dir=train.CheckpointFolder(tmp_path, resume=True), **options)
    whole, _ = fit(DATA, MODEL, **options)
    assert len(losses) == 3
    assert resumed.history == whole.history
    assert_same(resumed.variables, whole.variables)


SESSION = """
import os, signal, sys
from flaxapps import train
from tests.train.small import SGD, small_data, small_model
model = small_model()
def stop(event):
    if event.step == 1:
        os.kill(os.getpid(), signal.SIGINT)

def run():
    train.fit(model, model.init_variables(), small_data(36), optimizer=SGD, verbose=False, callbacks=stop)

"""


@pytest.mark.parametrize(
    "session", ["prompt", *(pytest.param(name, marks=pytest.mark.slow) for name in ("script", "ipython"))]
)
def test_ctrl_c_ends_a_script_and_not_a_session(session):
    """IPython and Jupyter take a SystemExit as the wish to leave."""
    if session == "ipython":
        pytest.importorskip("IPython", reason="needs the extra `notebooks`")
    code = {
        "script": SESSION + "run()\n",
        "prompt": "import sys; print(sys.last_value.result.steps, 'steps'); sys.exit(0)\n",
        "ipython": "from IPython.core.interactiveshell import InteractiveShell\n"
        f"shell = InteractiveShell.instance()\nshell.run_cell({SESSION!r})\n"
        "print(shell.run_cell('run()').error_in_exec)\n"
        "shell.run_cell('print(sys.last_value.result.steps, \"steps\")')\n",
    }[session]
    command = ["-i", "-c", SESSION] if session == "prompt" else ["-c", code]
    text = f"run()\n{code}" if session == "prompt" else ""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "PYTHON_BASIC_REPL": "1"}
    done = subprocess.run(
        [sys.executable, *command], input=text, capture_output=True, text=True, env=environment, cwd=ROOT, check=False
    )
    if session == "script":
        assert done.returncode == 130, done.stderr
        assert "Traceback" not in done.stderr
    else:
        assert "steps" in done.stdout, done.stdout + done.stderr
        assert "interrupted by SIGINT; not saved, but in the `result`" in done.stdout + done.stderr
