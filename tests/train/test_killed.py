"""SIGKILL at random moments, those while a checkpoint is being written included: the resumed run is the whole run."""

import multiprocessing
import os
import random
import signal
import time

import numpy as np
import pytest

from tests.train import killed

KILLS = 10
EVENTS = killed.EPOCHS * (killed.BATCHES + 1)  # the run tells of every step and every epoch


def start(context, folder, final, cache):
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=killed.run, args=(str(folder), str(final), str(cache), sender))
    process.start()
    sender.close()
    return process, receiver


def finish(process):
    process.join(120)
    assert process.exitcode == 0


def wait_for(receiver, events):
    for _ in range(events):
        receiver.recv()


def is_writing(folder):
    return any("tmp" in name for name in os.listdir(folder))


class Whole:
    """The run that is never killed, and how to start others like it."""

    def __init__(self, folder):
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(killed.PRELOADED)  # a process then starts in a second
        self.cache = folder / "cache"
        process, receiver = self.start(folder / "whole", folder / "whole.npz")
        receiver.recv()
        began = time.monotonic()
        finish(process)
        self.duration = time.monotonic() - began
        self.result = np.load(folder / "whole.npz")

    def start(self, folder, final):
        return start(self.context, folder, final, self.cache)

    def resume_and_compare(self, folder, final):
        process, _ = self.start(folder, final)
        finish(process)
        assert not is_writing(folder)
        result = np.load(final)
        assert result.files == self.result.files
        for name in result.files:
            np.testing.assert_array_equal(result[name], self.result[name], err_msg=f"{name} of {folder.name}")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return Whole(tmp_path_factory.mktemp("whole"))


@pytest.mark.slow
def test_killed_ten_times_and_resumed_to_the_bit(whole, tmp_path, record_property):
    choose = random.Random(4)
    left_unfinished = 0
    for number in range(KILLS):
        folder, final = tmp_path / f"run{number}", tmp_path / f"run{number}.npz"
        process, receiver = whole.start(folder, final)
        wait_for(receiver, choose.randint(1, EVENTS - 5))
        time.sleep(choose.uniform(0, whole.duration / EVENTS))
        while number % 2 and process.is_alive() and not is_writing(folder):
            pass
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        left_unfinished += is_writing(folder)
        whole.resume_and_compare(folder, final)
    record_property("checkpoints left unfinished", left_unfinished)


@pytest.mark.slow
def test_terminated_and_resumed_to_the_bit(whole, tmp_path):
    folder, final = tmp_path / "run", tmp_path / "run.npz"
    process, receiver = whole.start(folder, final)
    wait_for(receiver, EVENTS // 2)
    process.terminate()
    process.join(60)
    assert process.exitcode == 128 + signal.SIGTERM
    assert not final.exists()
    assert not is_writing(folder)
    whole.resume_and_compare(folder, final)
