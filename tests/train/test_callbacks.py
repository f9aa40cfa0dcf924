"""What a run shows and writes besides its result."""

import io
import time

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from flaxapps import train
from tests.train.small import fit, small_data

DATA = small_data(36)


def show(terminal, *callbacks):
    stream = io.StringIO()
    display = train.ProgressDisplay(2, 3, Console(file=stream, force_terminal=terminal, width=140))
    fit(DATA, epochs=2, validation_data=DATA, callbacks=[display, *callbacks])
    return stream.getvalue()


def test_where_there_is_no_terminal_every_epoch_is_a_line():
    lines = show(terminal=False).splitlines()
    assert len(lines) == 2
    for epoch, line in enumerate(lines, start=1):
        assert line.startswith(f"Epoch {epoch}/2: loss ")
        assert all(part in line for part in (" accuracy ", " val_loss ", " val_accuracy ", " images/s"))


def test_a_terminal_has_a_bar_with_the_values_of_the_step():
    text = show(True, lambda event: time.sleep(0.3))  # the bar is drawn ten times a second
    assert "Epoch 1/2" in text
    assert "3/3" in text
    assert "images/s" in text


@pytest.mark.parametrize("verbose", [True, False])
def test_verbose(verbose, capsys):
    fit(DATA, verbose=verbose)
    output, errors = capsys.readouterr()
    assert output == ""
    what_trains, epoch = "5 of 5 layers train, ", "\nEpoch 1/1: loss "
    assert (errors.startswith(what_trains) and epoch in errors) if verbose else errors == ""


@pytest.mark.parametrize("answer", [True, np.bool_(True), jnp.asarray(True), 1, [True]], ids=repr)
def test_a_callback_ends_the_run_with_a_true_of_any_kind(answer):
    """A comparison of NumPy's numbers was taken for no answer."""
    result, _ = fit(DATA, epochs=2, callbacks=[lambda event: answer if isinstance(event, train.EpochEnd) else None])
    assert result.stopped == (None if isinstance(answer, int | list) and answer is not True else "callback")


def test_tensorboard_files_hold_the_values(tmp_path):
    from tensorboardX.proto.event_pb2 import Event

    result, losses = fit(DATA, epochs=2, callbacks=[train.TensorBoard(tmp_path)])
    (path,) = tmp_path.iterdir()
    content, values = path.read_bytes(), {}
    while content:  # TFRecord: length, its checksum, data, its checksum
        length = int.from_bytes(content[:8], "little")
        for value in Event.FromString(content[12 : 12 + length]).summary.value:
            values.setdefault(value.tag, []).append(value.simple_value)
        content = content[16 + length :]
    assert values["step/loss"] == pytest.approx(losses)
    assert values["epoch/loss"] == pytest.approx(result.history["loss"])
    assert values["epoch/accuracy"] == pytest.approx(result.history["accuracy"])
