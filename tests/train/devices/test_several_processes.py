"""`fit` as two processes with two devices each, over loopback: what one process computes, whatever becomes of one."""

import shutil
import signal

import jax
import numpy as np
import pytest

from flaxapps.runtime.distributed import LOST_AFTER
from tests.arrays import read_npz
from tests.processes import run, started
from tests.train.checkpoints.test_checkpoints import damage
from tests.train.fit_process import BATCHES, fit

EPOCHS = 4
ENDS_WITHIN = 120  # seconds, where another process is gone
assert LOST_AFTER < ENDS_WITHIN
pytestmark = pytest.mark.slow


def command(folder, epochs=EPOCHS):
    return ["-m", "tests.train.fit_process", folder, "--epochs", epochs]


def assert_same_run(result, other, tolerance=1e-6):
    """Parameters, statistics and values; of a run that was resumed only the last losses are there."""
    assert set(result) == set(other)
    for name, array in other.items():
        compared = array[-len(result[name]) :] if name == "losses" else array
        np.testing.assert_allclose(result[name], compared, rtol=1e-5, atol=tolerance, err_msg=name)


def signal_one(folder, number, which):
    """Starts two processes, sends one a signal after its third step; their exit codes and what the other said."""
    with started([*command(folder), "--slowly", "--lost-after", 20], 2, devices=2) as running:
        while running[which].stderr.readline() != "step 3\n":
            assert running[which].poll() is None
        running[which].send_signal(number)
        running[which].communicate(timeout=ENDS_WITHIN)
        _, said = running[1 - which].communicate(timeout=ENDS_WITHIN)
        return [process.returncode for process in running], said


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The folder and the result of one process with four devices."""
    folder = tmp_path_factory.mktemp("alone")
    return folder, fit(folder, EPOCHS, devices=jax.devices()[:4])


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """Those of two processes with two devices each."""
    folder = tmp_path_factory.mktemp("together")
    run(command(folder), 2, devices=2)
    return folder, read_npz(folder / "final.npz")


def test_two_processes_compute_what_one_does(alone, together):
    """Twenty steps, four of them with fewer examples than devices, and dropout.

    Statistics of BatchNormalization would differ by far more were they those of a process alone.
    """
    (_, expected), (folder, result) = alone, together
    assert len(result["losses"]) == EPOCHS * BATCHES
    assert_same_run(result, expected)
    assert len((folder / "history.csv").read_text().splitlines()) == 1 + EPOCHS


def test_either_goes_on_from_a_checkpoint_of_the_other(alone, together, tmp_path):
    for folder, name in ((alone[0], "alone"), (together[0], "together")):
        shutil.copytree(folder, tmp_path / name)
    run(command(tmp_path / "alone", EPOCHS + 1), 2, devices=2)
    result = fit(tmp_path / "together", EPOCHS + 1, devices=jax.devices()[:1])
    assert len(result["losses"]) == BATCHES
    assert_same_run(result, read_npz(tmp_path / "alone" / "final.npz"))


def test_where_the_newest_is_damaged_all_take_the_one_before(alone, together, tmp_path):
    folder = tmp_path / "damaged"
    shutil.copytree(together[0], folder)
    newest = str(EPOCHS * BATCHES)
    damage(folder / newest)
    run(command(folder), 2, devices=2)
    assert (folder / f"broken-{newest}").exists()
    result = read_npz(folder / "final.npz")
    assert len(result["losses"]) == 1
    assert_same_run(result, alone[1])


def test_sigterm_to_one_saves_and_ends_both(alone, tmp_path):
    codes, _ = signal_one(tmp_path, signal.SIGTERM, which=1)
    assert codes == [128 + signal.SIGTERM] * 2
    assert not any("tmp" in path.name for path in tmp_path.iterdir())
    result = fit(tmp_path, EPOCHS, devices=jax.devices()[:1])
    assert 0 < len(result["losses"]) < EPOCHS * BATCHES - 2
    assert_same_run(result, alone[1])


@pytest.mark.parametrize("which", [0, 1])
def test_where_one_is_killed_the_other_says_so_and_ends(alone, tmp_path, which):
    codes, said = signal_one(tmp_path, signal.SIGKILL, which)
    assert codes[which] == -signal.SIGKILL
    assert codes[1 - which] != 0
    assert "another task died" in said
    result = fit(tmp_path, EPOCHS, devices=jax.devices()[:8])
    assert 0 < len(result["losses"]) < EPOCHS * BATCHES
    assert_same_run(result, alone[1])
