"""Checksums: every bit counts, whatever the dtype, and a seal tells what has changed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxapps.train.checkpoints.checksums import check_seal, checksums_of, sealed

DTYPES = ["float32", "bfloat16", "float16", "int32", "uint32", "int8"]
RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_bit_of_an_array_counts(dtype):
    array = np.asarray(jnp.asarray(RANDOM.integers(-50, 50, (3, 5))).astype(dtype))
    seen = {checksums_of(array)[""]}
    for bit in range(array.nbytes * 8):
        changed = bytearray(array.tobytes())
        changed[bit // 8] ^= 1 << bit % 8
        seen.add(checksums_of(np.frombuffer(changed, array.dtype).reshape(array.shape))[""])
    assert len(seen) == 1 + array.nbytes * 8


def test_order_counts_and_devices_do_not():
    array = jnp.asarray(RANDOM.normal(size=(8, 4)).astype("float32"))
    assert checksums_of(array) != checksums_of(array[::-1])
    assert checksums_of(array) != checksums_of(-array)  # many sign bits at once
    mesh = jax.make_mesh((4,), ("batch",), (jax.sharding.AxisType.Auto,))
    for spec in (("batch",), ()):
        placed = jax.device_put(array, jax.NamedSharding(mesh, jax.P(*spec)))
        assert checksums_of(placed) == checksums_of(array)


def test_numbers_of_64_bits_and_none_at_all():
    with jax.enable_x64(True):
        one = checksums_of(np.array([1.0, 2.0]))
        assert one != checksums_of(np.array([1.0, np.nextafter(2.0, 3)]))
    assert checksums_of({"flag": np.array(True)}) != checksums_of({"flag": np.array(False)})
    assert checksums_of({"empty": np.zeros((0, 3), np.float32)}) == {"empty": 0}


def test_a_seal_names_what_has_changed():
    arrays = {"kernel": np.ones((2, 2), np.float32), "bias": np.zeros(2, np.float32)}
    record = sealed({"step": 3, "loss": [0.1, 1e-300]}, arrays)
    check_seal(record, arrays)
    with pytest.raises(ValueError, match="1 arrays are not what was saved: bias"):
        check_seal(record, arrays | {"bias": np.ones(2, np.float32)})
    with pytest.raises(ValueError, match="kernel"):
        check_seal(record, {"bias": arrays["bias"]})
    with pytest.raises(ValueError, match="position is not what was saved"):
        check_seal(record | {"step": 4}, arrays)
