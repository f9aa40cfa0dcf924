"""Folders that tests read."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden"
LEGACY = GOLDEN / "legacy"  # files that old versions of Keras wrote
DEMO = ROOT / ".cache" / "demo"  # the KERAS_HOME of `flaxapps demo` in the tests
