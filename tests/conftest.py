"""Settings for the whole suite: they must stand before JAX starts its first backend."""

import os
from pathlib import Path

CACHE = Path(__file__).parent.parent / ".cache"
os.environ["KERAS_BACKEND"] = "jax"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax  # noqa: E402  (the variables above are read at import)
import pytest  # noqa: E402  (follows jax)

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_compilation_cache_dir", str(CACHE / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


@pytest.fixture(autouse=True)
def keras_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has an empty Keras folder of its own: no keras.json and no weights of the user's are seen."""
    home = tmp_path_factory.mktemp("keras_home")
    monkeypatch.setenv("KERAS_HOME", str(home))
    monkeypatch.delenv("FLAXAPPS_MIRROR", raising=False)
    return home
