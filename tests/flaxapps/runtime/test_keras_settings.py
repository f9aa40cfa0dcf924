"""keras.json: read when asked, never written, never remembered."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import pytest

from flaxapps.runtime import keras_settings as config
from flaxapps.runtime.process import SHORTEST_KEPT, keep_compilations


def write_settings(home: Path, **settings: object) -> None:
    (home / "keras.json").write_text(json.dumps(settings))


def test_home_is_the_environment_variable(keras_home: Path):
    assert config.keras_home() == keras_home


@pytest.mark.parametrize("value", [None, ""])
def test_home_without_the_variable(value: str | None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    if value is None:
        monkeypatch.delenv("KERAS_HOME")
    else:
        monkeypatch.setenv("KERAS_HOME", value)
    assert config.keras_home() == Path("/home/somebody/.keras")


def test_a_tilde_in_the_variable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("KERAS_HOME", "~/settings")
    assert config.keras_home() == Path("/home/somebody/settings")


def test_defaults_and_nothing_written(keras_home: Path, monkeypatch: pytest.MonkeyPatch):
    home = keras_home / "absent"
    monkeypatch.setenv("KERAS_HOME", str(home))
    assert config.image_data_format() == "channels_last"
    assert config.floatx() == "float32"
    assert not home.exists()


def test_follows_the_file_at_once(keras_home: Path):
    for data_format, floatx in [("channels_first", "float16"), ("channels_last", "float64")]:
        write_settings(keras_home, image_data_format=data_format, floatx=floatx)
        assert config.image_data_format() == config.standardize_data_format(None) == data_format
        assert config.floatx() == floatx


def test_unknown_keys_are_ignored(keras_home: Path):
    write_settings(keras_home, image_dim_ordering="th", backend="theano", epsilon="?", floatx="bfloat16")
    assert config.image_data_format() == "channels_last"
    assert config.floatx() == "bfloat16"


@pytest.mark.parametrize("value", ["float8", 32, None, ["float32"], {}])
@pytest.mark.parametrize("key", ["floatx", "image_data_format"])
def test_bad_value_names_file_key_value_and_choices(keras_home: Path, key: str, value: object):
    write_settings(keras_home, **{key: value})
    with pytest.raises(ValueError, match=key) as caught:
        getattr(config, key)()
    allowed = config.FLOAT_TYPES if key == "floatx" else config.DATA_FORMATS
    for part in [str(keras_home / "keras.json"), repr(value), *allowed]:
        assert part in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\xff", b"[]", b'"floatx"', b"3"])
def test_broken_file_is_named(keras_home: Path, content: bytes):
    (keras_home / "keras.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"keras\.json"):
        config.floatx()


@pytest.mark.parametrize("value", ["channels_middle", "CHANNELS_LAST", "", 3, ["channels_last"]])
def test_standardize_data_format_in_keras_words(value: str):
    with pytest.raises(ValueError, match="Expected data_format to be one of `channels_first` or `channels_last`") as e:
        config.standardize_data_format(value)
    assert str(e.value).endswith(f"Received: data_format={value}")


def test_an_explicit_format_does_not_need_the_file(keras_home: Path):
    (keras_home / "keras.json").write_text("{")
    assert config.standardize_data_format("channels_last") == "channels_last"


@pytest.fixture
def fresh_jax(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str | None]]:
    """JAX as it is where nobody has told it about a cache; gives the folder it was told."""
    options = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {option: getattr(jax.config, option) for option in options}
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    jax.config.update("jax_compilation_cache_dir", None)
    yield lambda: jax.config.jax_compilation_cache_dir
    for option, value in before.items():
        jax.config.update(option, value)


def test_compilations_are_kept_beside_the_settings(fresh_jax: Callable[[], str | None], keras_home: Path):
    keep_compilations()
    assert fresh_jax() == str(keras_home / "flaxapps" / "compiled")
    assert jax.config.jax_persistent_cache_min_compile_time_secs == SHORTEST_KEPT


def test_what_jax_was_told_stays(
    fresh_jax: Callable[[], str | None], keras_home: Path, monkeypatch: pytest.MonkeyPatch
):
    jax.config.update("jax_compilation_cache_dir", "/elsewhere")
    keep_compilations()
    assert fresh_jax() == "/elsewhere"
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    keep_compilations()
    assert fresh_jax() is None
    assert not [*keras_home.iterdir()]


def test_nothing_is_kept_where_no_folder_can_be(fresh_jax: Callable[[], str | None], keras_home: Path):
    (keras_home / "flaxapps").write_text("a file is in the way")
    keep_compilations()
    assert fresh_jax() is None
