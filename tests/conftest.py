"""Settings for the whole suite: they must stand before JAX starts its first backend."""

import os
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

CACHE = Path(__file__).parent.parent / ".cache"
os.environ["KERAS_BACKEND"] = "jax"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax  # noqa: E402  (the variables above are read at import)
import pytest  # noqa: E402  (follows jax)

import flaxapps  # noqa: E402  (follows jax)
from tests.keras_draws import draw_by_numpy  # noqa: E402  (follows jax)
from tests.places import ROOT  # noqa: E402  (follows jax)
from tests.rank_promotion import raise_for_ours_alone  # noqa: E402  (follows jax)

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
raise_for_ours_alone()
jax.config.update("jax_compilation_cache_dir", str(CACHE / "jax"))
# Nearly all programs of the tests compile in less than half a second. All of them are kept, which costs nothing: of
# equal ones, which are frequent, one is compiled, and a second run with the same jaxlib takes a third of the time.
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)

WITHOUT_PROMOTION = tuple(
    f"tests/{name}"
    for name in (
        "flaxapps/layers", "flaxapps/graph", "flaxapps/ops", "flaxapps/transforms", "flaxapps/quantization",
        "flaxapps/test_model.py", "flaxapps/test_image.py", "train/test_arguments.py", "train/test_callbacks.py",
        "train/test_loop.py", "train/test_errors.py", "train/test_optimizers.py", "train/test_range_test.py",
        "train/step/test_losses.py",
    )
)  # fmt: skip # kept on few lines on purpose
KEPT_PROGRAMS = 1000  # of about 0.8 MB each


@pytest.fixture(autouse=True)
def keras_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has an empty Keras folder of its own: no keras.json and no weights of the user's are seen."""
    home = tmp_path_factory.mktemp("keras_home")
    monkeypatch.setenv("KERAS_HOME", str(home))
    monkeypatch.delenv("FLAXAPPS_MIRROR", raising=False)
    return home


@pytest.fixture(autouse=True)
def ranks_of_arrays(request: pytest.FixtureRequest) -> Iterator[None]:
    """Our packages may not promote ranks in these tests; RANK_PROMOTION=raise in the environment: in none."""
    place = request.path.relative_to(ROOT).as_posix() if request.path.is_relative_to(ROOT) else ""
    quick = place.startswith(WITHOUT_PROMOTION) and not request.node.get_closest_marker("slow")
    everywhere = os.environ.get("RANK_PROMOTION") == "raise"
    with jax.numpy_rank_promotion("raise") if quick or everywhere else nullcontext():
        yield


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
def programs_are_forgotten(compiled: list[str]) -> Iterator[None]:
    """JAX keeps every program it has compiled: workers would grow to 4 GB, and collecting garbage take 0.6 s."""
    yield
    if len(compiled) > KEPT_PROGRAMS:
        jax.clear_caches()
        compiled.clear()
