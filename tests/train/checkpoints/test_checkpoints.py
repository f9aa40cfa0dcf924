"""Checkpoints: resuming goes on to the bit, refuses other runs, survives signals, NaN and broken files."""

import dataclasses
import json
import os
import shutil
import signal

import jax
import numpy as np
import optax
import pytest

from flaxapps import train
from tests.train.small import assert_close, assert_same, fit, small_data, small_model

DATA = small_data(36)
OPTIONS = {"epochs": 3, "optimizer": optax.adam(0.01), "validation_data": small_data(20, seed=1), "seed": 3}


class StopError(Exception):
    """What the tests stop a run with."""


def stop_at(step):
    def stop(event):
        if isinstance(event, train.StepEnd) and event.step == step:
            raise StopError

    return stop


def signal_at(step, number):
    def send(event):
        if isinstance(event, train.StepEnd) and event.step == step:
            os.kill(os.getpid(), number)

    return send


def resuming(options):
    """The options of a run that resumes from the folder of these."""
    folder = train.CheckpointFolder.of(options["checkpoint_dir"])
    return options | {"checkpoint_dir": dataclasses.replace(folder, resume=True)}


def steps_in(folder):
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


@pytest.fixture(scope="module")
def model():
    return small_model(dropout=0.5)


@pytest.fixture(scope="module")
def whole(model):
    """The run that nothing happens to."""
    return fit(DATA, model, **OPTIONS)[0]


@pytest.mark.parametrize(("stopped_at", "every"), [(2, 1), (4, None), (5, 2)])
def test_a_resumed_run_is_the_whole_run(model, whole, tmp_path, stopped_at, every):
    options = OPTIONS | {"checkpoint_dir": train.CheckpointFolder(tmp_path, every)}
    with pytest.raises(StopError):
        fit(DATA, model, callbacks=[stop_at(stopped_at)], **options)
    result, losses = fit(DATA, model, **resuming(options))
    assert 0 < len(losses) < 9
    assert_same(result.variables, whole.variables)
    assert result.history == whole.history
    assert (result.steps, result.best_epoch) == (whole.steps, whole.best_epoch)
    again, losses = fit(DATA, model, **resuming(options))
    assert losses == []
    assert_same(again.variables, whole.variables)
    assert result.checkpoint == tmp_path / "9"
    rows = (tmp_path / "history.csv").read_text().splitlines()
    assert rows[0] == "epoch,loss,accuracy,val_loss,val_accuracy"
    assert [float(row.split(",")[1]) for row in rows[1:]] == whole.history["loss"]


@pytest.mark.slow
def test_the_last_two_and_the_best_are_kept(model, tmp_path):
    rates = optax.join_schedules([lambda _: 0.02, lambda _: -0.02], [3])  # uphill after the first epoch
    options = OPTIONS | {"optimizer": optax.sgd(rates), "epochs": 5, "checkpoint_dir": tmp_path}
    stopping = train.EarlyStopping(patience=10)
    kept = []

    def keep(event):
        if isinstance(event, train.EpochEnd):
            kept.append(jax.device_get(event.variables))

    with pytest.raises(StopError):
        fit(DATA, model, callbacks=[keep, stop_at(13)], early_stopping=stopping, **options)
    result, _ = fit(DATA, model, early_stopping=stopping, **resuming(options))
    assert result.best_epoch == 0
    assert steps_in(tmp_path) == [3, 12, 15]
    assert_same(result.variables, kept[0])  # read from its checkpoint


@pytest.mark.slow
def test_another_number_of_devices_can_go_on(whole, tmp_path):
    model = small_model()
    alone, _ = fit(DATA, model, devices=jax.devices()[:1], **OPTIONS)
    options = OPTIONS | {"checkpoint_dir": train.CheckpointFolder(tmp_path, every=1)}
    with pytest.raises(StopError):
        fit(DATA, model, parallel="jit", callbacks=[stop_at(4)], **options)
    result, losses = fit(DATA, model, devices=jax.devices()[:2], parallel="pmap", **resuming(options))
    assert len(losses) <= 6
    assert_close(result.variables, alone.variables, 1e-4)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_save_and_stop(model, whole, tmp_path, number):
    before = signal.getsignal(number)
    options = OPTIONS | {"checkpoint_dir": tmp_path}
    with pytest.raises(train.Interrupted) as stopped:
        fit(DATA, model, callbacks=[signal_at(4, number)], **options)
    assert signal.getsignal(number) is before
    assert stopped.value.code == 128 + number
    assert stopped.value.checkpoint == tmp_path / "5"  # the step that was under way is finished
    assert number.name in str(stopped.value)
    assert str(tmp_path) in str(stopped.value)
    assert stopped.value.result.stopped == "interrupted"
    result, losses = fit(DATA, model, **resuming(options))
    assert len(losses) == 4
    assert_same(result.variables, whole.variables)
    assert result.history == whole.history


def test_nan_names_the_last_good_checkpoint_and_the_examples(model, tmp_path):
    batch = DATA[0][:16], DATA[1][:16]
    broken = batch[0].copy()
    broken[3, 0], broken[7, 2, 2] = np.nan, np.inf
    with pytest.raises(train.TrainingError, match="loss is nan at step 3 ") as error:
        fit([batch, batch, (broken, batch[1]), batch], model, checkpoint_dir=train.CheckpointFolder(tmp_path, every=1))
    assert f"last good checkpoint: {tmp_path / '2'}." in str(error.value)
    assert "the images of examples 3, 7 hold NaN or infinity (counted from 0, of 16)" in str(error.value)
    assert steps_in(tmp_path) == [1, 2]


def test_nan_of_finite_data_is_told_as_such(model, tmp_path):
    with pytest.raises(train.TrainingError, match=r"images and labels are finite.*learning rate"):
        fit(DATA, model, optimizer=optax.sgd(1e20), checkpoint_dir=train.CheckpointFolder(tmp_path, every=1))
    assert steps_in(tmp_path)


def test_statistics_that_overflow_are_not_saved(model, tmp_path):
    images = DATA[0].copy()
    images[0] = 1e30  # its variance is infinite, which BatchNormalization divides by: the loss stays finite
    with pytest.raises(train.TrainingError, match="moving statistic is NaN or infinite after step"):
        fit((images, DATA[1]), model, checkpoint_dir=tmp_path)
    assert steps_in(tmp_path) == []


def damage(folder):
    """Overwrites the middle of every file of arrays."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size > 1000]
    assert files
    for path in files:
        content = bytearray(path.read_bytes())
        middle = len(content) // 2
        content[middle : middle + 64] = bytes(64)
        path.write_bytes(content)


def cut(folder):
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def lose_arrays(folder):
    for path in list((folder / "variables").rglob("*")):
        if path.is_file():
            path.unlink()


def mix(folder):
    """The arrays of the step before, whole and readable. Single bits are flipped by `tests.faults`."""
    shutil.rmtree(folder / "variables")
    shutil.copytree(folder.with_name(str(int(folder.name) - 1)) / "variables", folder / "variables")


def change_position(folder):
    path = folder / "position" / "metadata"
    record = json.loads(path.read_text())
    record["position"]["batch"] += 1
    path.write_text(json.dumps(record))


@pytest.mark.parametrize(
    "harm",
    [damage, mix, change_position, *(pytest.param(harm, marks=pytest.mark.slow) for harm in (cut, lose_arrays))],
)
def test_a_broken_checkpoint_falls_back_to_the_one_before(model, whole, tmp_path, harm):
    options = OPTIONS | {"checkpoint_dir": train.CheckpointFolder(tmp_path, every=1)}
    with pytest.raises(StopError):
        fit(DATA, model, callbacks=[stop_at(6)], **options)
    newest = steps_in(tmp_path)[-1]
    harm(tmp_path / str(newest))
    with pytest.warns(UserWarning, match=rf"{newest} cannot be read.*broken-{newest}"):
        result, _ = fit(DATA, model, **resuming(options))
    assert (tmp_path / f"broken-{newest}").exists()
    assert_same(result.variables, whole.variables)


def test_another_run_is_refused_with_the_differences(model, tmp_path):
    options = OPTIONS | {"checkpoint_dir": tmp_path}
    fit(DATA, model, **options | {"epochs": 1})
    with pytest.raises(train.CheckpointError, match="resume=True"):
        fit(DATA, model, **options)
    others = [
        ({"optimizer": optax.sgd(0.1, momentum=0.9)}, ["optimizer: was there, is not: 0.mu.conv1.kernel", "trace"]),
        ({"frozen": frozenset({"conv1"})}, ["frozen: is there, was not: conv1"]),
        ({"batch_size": 8, "seed": 4}, ["batch_size: was 16, is 8", "seed: was 3, is 4"]),
        ({"validation_data": None}, ["validation_data: was"]),
    ]
    for change, lines in others:
        with pytest.raises(train.CheckpointError, match="another run") as error:
            fit(DATA, model, **resuming(options) | change)
        assert all(line in str(error.value) for line in lines), str(error.value)
    with pytest.raises(train.CheckpointError, match="drop: Dropout"):
        fit(DATA, small_model(), **resuming(options))
    with pytest.raises(train.CheckpointError, match="data: labels: was"):
        fit((DATA[0], DATA[1][::-1].copy()), model, **resuming(options))


def test_a_checkpoint_says_what_it_is_of(model, tmp_path):
    data = train.ArrayDataset(*DATA, class_names=[*"abcd"])
    result, _ = fit(data, model, checkpoint_dir=tmp_path, frozen=frozenset({"conv1"}))
    assert result.class_names == tuple("abcd")
    stored = json.loads((tmp_path / "3" / "position" / "metadata").read_text())
    assert stored["run"]["class_names"] == [*"abcd"]
    assert stored["run"]["frozen"] == ["conv1"]
    assert stored["run"]["data"] == data.fingerprint
    assert stored["position"]["history"] == result.history


def test_a_full_disk_is_told_with_the_last_good_checkpoint(model, tmp_path, monkeypatch):
    import orbax.checkpoint as ocp

    saved = []
    save = ocp.CheckpointManager.save

    def save_once(self, step, **arguments):
        if saved:
            raise OSError(28, "No space left on device")
        saved.append(step)
        return save(self, step, **arguments)

    monkeypatch.setattr(ocp.CheckpointManager, "save", save_once)
    with pytest.raises(train.CheckpointError, match=rf"No space left.*last good one: {tmp_path / '3'}"):
        fit(DATA, model, **OPTIONS | {"checkpoint_dir": tmp_path})


def test_a_last_checkpoint_that_fails_in_the_background_is_told(model, tmp_path, monkeypatch):
    import orbax.checkpoint as ocp

    wait = ocp.CheckpointManager.wait_until_finished

    def fail(self):
        wait(self)
        if self.all_steps() == [3, 6]:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(ocp.CheckpointManager, "wait_until_finished", fail)
    with pytest.raises(train.CheckpointError, match=r"No space left.*last good one"):
        fit(DATA, model, **OPTIONS | {"checkpoint_dir": tmp_path, "epochs": 2})
