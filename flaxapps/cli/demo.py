"""`flaxapps demo`: classify real photos with a real Keras model, then train it."""

import argparse
from pathlib import Path

from flaxapps.demo.digits import run_training
from flaxapps.demo.photos import missing_to_train, run_demo
from flaxapps.runtime.console import open_console
from flaxapps.runtime.process import keep_compilations


def run(arguments: argparse.Namespace) -> int:
    """Runs `flaxapps demo`."""
    keep_compilations()
    model = run_demo(arguments.output)
    if arguments.photos_only:
        return 0
    if missing := missing_to_train():
        names = ", ".join(missing)
        open_console().print(f"To continue with training, install {names}: pip install 'flaxapps[demo]'")
        return 0
    run_training(model, Path(arguments.output).resolve().parent)
    return 0
