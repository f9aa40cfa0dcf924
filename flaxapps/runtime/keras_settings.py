"""Keras settings of the user: the folder of Keras's files, and `keras.json` in it.

The file is read again on every call and never written.
"""

import json
from pathlib import Path
from typing import Any

from weight_port.published import keras_home as keras_home

DATA_FORMATS = ("channels_first", "channels_last")


FLOAT_TYPES = ("float16", "bfloat16", "float32", "float64")


def image_data_format() -> str:
    """Returns the default data format in `keras.json`: "channels_first" or "channels_last" (if not set).

    Raises:
        ValueError: `keras.json` is not valid JSON, or holds another value.
    """
    return _setting("image_data_format", default="channels_last", allowed=DATA_FORMATS)


def floatx() -> str:
    """Returns the default float type in `keras.json`: "float16", "bfloat16", "float64" or "float32" (if not set).

    Raises:
        ValueError: `keras.json` is not valid JSON, or holds another value.
    """
    return _setting("floatx", default="float32", allowed=FLOAT_TYPES)


def standardize_data_format(value: str | None) -> str:
    """Checks a `data_format` argument; None takes `image_data_format()`.

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
