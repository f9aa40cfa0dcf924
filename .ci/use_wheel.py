"""Imports every module of an installed wheel and computes with it, where no checkout is on the path."""

import importlib
import pkgutil

import numpy as np

import flaxapps
import weight_port

assert "site-packages" in flaxapps.__file__, flaxapps.__file__
names = [
    info.name
    for package in (flaxapps, weight_port)
    for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if not info.name.endswith(".__main__")
]
for name in names:
    importlib.import_module(name)
for name in ("flaxapps.saving.dialects.models", "flaxapps.train.step.step", "flaxapps.cli.weights.verify"):
    assert name in names, name

image = flaxapps.Input((8, 8, 3))
model = flaxapps.Model(image, flaxapps.layers.Conv2D(2, 3)(image))
outputs = flaxapps.predict(model, model.init_variables(), np.zeros((3, 8, 8, 3), np.uint8))
assert outputs.shape == (3, 6, 6, 2)
print(f"{len(names)} modules of the wheel")
