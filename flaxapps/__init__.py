"""Keras Applications as pure JAX functions.

A network is a hashable static description (`Model`) plus an explicit tree of arrays. Weights are read from the files
that Keras publishes and writes, bit for bit, and can be written back to them.

`import flaxapps` alone loads nothing: JAX and everything else are imported when the first name is used, so that
`flaxapps --help` answers at once.
"""

import importlib
import importlib.util
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flaxapps.api import *  # noqa: F403 (one list of names is enough)
else:

    def __getattr__(name):
        """Imports the module of this name, or else all public names."""
        if name != "__all__" and name.startswith("__"):
            raise AttributeError(f"module 'flaxapps' has no attribute {name!r}")
        if importlib.util.find_spec(f"flaxapps.{name}"):
            return importlib.import_module(f"flaxapps.{name}")
        names = _public_names()
        if name == "__all__":
            return sorted(names)
        if name not in names:
            raise AttributeError(f"module 'flaxapps' has no attribute {name!r}")
        globals().update(names)
        return names[name]

    def __dir__():
        """Lists the public names."""
        return sorted({*globals(), *_public_names()})

    def _public_names():
        api = importlib.import_module("flaxapps.api")
        return {name: value for name, value in vars(api).items() if not name.startswith("_")}
