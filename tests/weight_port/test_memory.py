"""The largest published file fits in memory about twice, and not three times."""

import pytest

from tests.benchmarks.loading import LOAD, measure, write_vgg16


@pytest.mark.slow
def test_peak_memory_of_the_largest_file(tmp_path):
    path = write_vgg16(tmp_path / "vgg16.h5")
    try:
        assert path.stat().st_size > 553_000_000
        found = measure(LOAD, str(path))
    finally:
        path.unlink()
    assert 553_000_000 < found["peak_bytes"] < 1_300_000_000
