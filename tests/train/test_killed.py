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


def start(context, folder, final, cache):
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=killed.run, args=(str(folder), str(final), str(cache), sender))
    process.start()
    sender.close()
    return process, receiver


def finish(process):
    process.join(120)
    assert process.exitcode == 0


def is_writing(folder):
    return any("tmp" in name for name in os.listdir(folder))


@pytest.mark.slow
def test_killed_ten_times_and_resumed_to_the_bit(tmp_path, record_property):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(killed.PRELOADED)  # a process then starts in a second
    cache = tmp_path / "cache"
    process, receiver = start(context, tmp_path / "whole", tmp_path / "whole.npz", cache)
    receiver.recv()
    began = time.monotonic()
    finish(process)
    duration = time.monotonic() - began
    whole = np.load(tmp_path / "whole.npz")
    choose = random.Random(4)
    left_unfinished = 0
    for number in range(KILLS):
        folder, final = tmp_path / f"run{number}", tmp_path / f"run{number}.npz"
        process, receiver = start(context, folder, final, cache)
        receiver.recv()
        time.sleep(choose.uniform(0, 0.9 * duration))
        while number % 2 and process.is_alive() and not is_writing(folder):
            pass
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        left_unfinished += is_writing(folder)
        process, _ = start(context, folder, final, cache)
        finish(process)
        assert not is_writing(folder)
        result = np.load(final)
        assert result.files == whole.files
        for name in whole.files:
            np.testing.assert_array_equal(result[name], whole[name], err_msg=f"{name} of run {number}")
    record_property("checkpoints left unfinished", left_unfinished)
