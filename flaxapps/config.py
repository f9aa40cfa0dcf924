"""The user's Keras settings: where Keras keeps its files, and what `keras.json` there says.

The file is read anew on every call and never written. Beside it the command line keeps compiled programs.
"""

import json
import os
from pathlib import Path
from typing import Any

DATA_FORMATS = ("channels_first", "channels_last")
SHORTEST_KEPT = 0.1  # seconds a compilation takes; JAX's own 1.0 would leave small networks out
FLOAT_TYPES = ("float16", "bfloat16", "float32", "float64")


def keras_home() -> Path:
    """Folder of Keras settings and weights: `$KERAS_HOME`, or `~/.keras` where that is unset or empty."""
    return Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser()


def image_data_format() -> str:
    """Default place of the channels: "channels_first" or "channels_last" (where `keras.json` says nothing).

    Raises:
        ValueError: `keras.json` is not valid JSON, or holds another value.
    """
    return _setting("image_data_format", default="channels_last", allowed=DATA_FORMATS)


def floatx() -> str:
    """Default float type: "float16", "bfloat16", "float64" or "float32" (where `keras.json` says nothing).

    Raises:
        ValueError: `keras.json` is not valid JSON, or holds another value.
    """
    return _setting("floatx", default="float32", allowed=FLOAT_TYPES)


def standardize_data_format(value: str | None) -> str:
    """Checks a `data_format` argument; None stands for `image_data_format()`.

    >>> standardize_data_format("channels_first")
    'channels_first'

    Raises:
        ValueError: `value` is neither None nor one of the two formats.
    """
    if value is None:
        return image_data_format()
    if value not in DATA_FORMATS:
        raise ValueError(
            f"Expected data_format to be one of `channels_first` or `channels_last`. Received: data_format={value}"
        )
    return value


def keep_compilations() -> None:
    """Lets JAX keep what it compiles in `keras_home()`, for the next process; for programs, not for libraries.

    Nothing is changed where JAX has been told already (`JAX_COMPILATION_CACHE_DIR`, which may be empty for no cache),
    or where the folder cannot be made.
    """
    import jax

    known: Any = jax.config  # JAX adds its options without types
    if known.jax_compilation_cache_dir is not None or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    folder = keras_home() / "flaxapps" / "compiled"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", SHORTEST_KEPT)


def _setting(key: str, *, default: str, allowed: tuple[str, ...]) -> str:
    file = keras_home() / "keras.json"
    value = _read_json_object(file).get(key, default)
    if value not in allowed:
        raise ValueError(f"{file}: {key!r} is {value!r}; allowed: {', '.join(map(repr, allowed))}.")
    return str(value)


def _read_json_object(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:  # bad JSON and bad UTF-8 alike
        raise ValueError(f"{file} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} must hold a JSON object such as {{}}; found: {content!r}")
    return content
