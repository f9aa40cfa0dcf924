"""Settings for the whole suite: they must stand before JAX starts its first backend."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

CACHE = Path(__file__).parent.parent / ".cache"
os.environ["KERAS_BACKEND"] = "jax"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax  # noqa: E402  (the variables above are read at import)
import pytest  # noqa: E402  (follows jax)

import flaxapps  # noqa: E402  (follows jax)
from tests.keras_draws import draw_by_numpy  # noqa: E402  (follows jax)
from tests.quick_programs import add_options  # noqa: E402  (follows jax)
from tests.rank_promotion import raise_for_ours_alone  # noqa: E402  (follows jax)

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
raise_for_ours_alone()
add_options()
jax.config.update("jax_compilation_cache_dir", str(CACHE / "jax"))
# Nearly all programs of the tests compile in less than half a second. All of them are kept, which costs nothing: of
# equal ones, which are frequent, one is compiled, and a second run with the same jaxlib takes a third of the time.
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)

KEPT_PROGRAMS = 1000  # of about 0.8 MB each
# What XLA makes of a program is not what these test: theirs are compiled quickly (tests/quick_programs.py) unless the
# variable OPTIMIZED is set, as CI does on the newest Python, and on the oldest for tests marked `every_jax`.
UNOPTIMIZED = (
    "flaxapps/layers",
    "flaxapps/photos",
    "flaxapps/saving",
    "flaxapps/test_model.py",
    "flaxapps/test_registry.py",
    "train",
)
# Files with the longest tests, most of them slow, the longest first.
LONGEST = (
    "flaxapps/applications/test_parity_training.py",
    "faults/test_faults.py",
    "test_notebooks.py",
    "flaxapps/applications/test_parity_keras3.py",
    "flaxapps/saving/test_save.py",
    "train/devices/test_several_processes.py",
    "flaxapps/transforms/test_optimize.py",
    "flaxapps/saving/test_applications.py",
    "test_readme.py",
    "flaxapps/inference/test_export.py",
    "flaxapps/quantization/test_quantize.py",
    "flaxapps/saving/test_dialects.py",
    "flaxapps/cli/test_bucket_runs.py",
    "flaxapps/cli/test_finetune.py",
    "train/devices/test_lowering.py",
    "flaxapps/demo/test_digits.py",
    "train/test_rank_promotion.py",
    "test_docs.py",
    "flaxapps/saving/test_legacy_files.py",
)


def is_unoptimized(path: Path) -> bool:
    """Whether the programs of this file of tests are compiled quickly, without most optimizations."""
    folder = Path(__file__).parent
    return any(path.is_relative_to(folder / each) for each in UNOPTIMIZED) and not os.environ.get("OPTIMIZED")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest come first, lest one process waits for the other, and the unoptimized ones last."""
    folder = Path(__file__).parent
    longest = {folder / path: number for number, path in enumerate(LONGEST)}
    items.sort(key=lambda item: (longest.get(item.path, len(LONGEST)), is_unoptimized(item.path)))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Our packages may not promote ranks; in slow tests only with RANK_PROMOTION=raise in the environment."""
    allowed = item.get_closest_marker("slow") and os.environ.get("RANK_PROMOTION") != "raise"
    jax.config.update("jax_numpy_rank_promotion", "allow" if allowed else "raise")


def pytest_collection_finish() -> None:
    """What has been collected stays: garbage is looked for among what the tests make, and less often."""
    gc.set_threshold(10_000, 20, 20)
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def keras_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has an empty Keras folder of its own: no keras.json and no weights of the user's are seen."""
    home = tmp_path_factory.mktemp("keras_home")
    monkeypatch.setenv("KERAS_HOME", str(home))
    monkeypatch.delenv("FLAXAPPS_MIRROR", raising=False)
    return home


@pytest.fixture
def nothing_registered() -> Iterator[None]:
    """Kinds of layers and activations that a test registers are forgotten after it."""
    yield
    flaxapps.layers.custom._REGISTERED.clear()
    flaxapps.layers.activations.REGISTERED_ACTIVATIONS.clear()


@pytest.fixture(autouse=True)
def drawn_by_numpy() -> None:
    """Initial weights of Keras, from the test after the first that imports it."""
    draw_by_numpy()


@pytest.fixture(scope="session")
def compiled() -> list[str]:
    """The programs compiled, or read from the cache, since they were last forgotten."""
    programs: list[str] = []

    def note(event: str, seconds: float, **about: str | int) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            programs.append(str(about.get("fun_name")))

    jax.monitoring.register_event_duration_secs_listener(note)
    return programs


@pytest.fixture(autouse=True, scope="module")
def programs_are_forgotten(request: pytest.FixtureRequest, compiled: list[str]) -> None:
    """JAX keeps every program it has compiled: workers would grow to 4 GB, and collecting garbage take 0.6 s.

    Nor may a test of optimized programs be given one that is not.
    """
    unoptimized = is_unoptimized(request.path)
    if len(compiled) > KEPT_PROGRAMS or unoptimized != jax.config.read("jax_disable_most_optimizations"):
        jax.config.update("jax_disable_most_optimizations", unoptimized)
        jax.clear_caches()
        compiled.clear()
        gc.unfreeze()
    gc.collect()  # Keras does so for each of its networks: among what its module of tests has made, not all before
    gc.freeze()
