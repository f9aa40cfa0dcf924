"""The options that make a command one of several processes; `tests/train` and `test_evaluate` run such commands."""

import argparse

import numpy as np
import pytest

from flaxapps.cli.arguments.shared import add_distributed
from flaxapps.cli.options import join_processes
from flaxapps.runtime.distributed import is_first, share_of, sum_over_processes


def join(*options: str) -> None:
    parser = argparse.ArgumentParser()
    add_distributed(parser)
    join_processes(parser.parse_args(options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--coordinator", "a:1"], "go together"),
        (["--distributed", "--num-processes", "2"], "go together"),
        (["--coordinator", "a:1", "--num-processes", "2", "--process-id", "2"], "got 2 of 2"),
        (["--coordinator", "host", "--num-processes", "2", "--process-id", "1"], "a port, such as .*got host"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        join(*options)


def test_one_process_is_the_first_and_does_everything():
    join()
    assert is_first()
    assert list(share_of([3, 4])) == [3, 4]
    assert sum_over_processes(np.array([2, 5])).tolist() == [2, 5]
