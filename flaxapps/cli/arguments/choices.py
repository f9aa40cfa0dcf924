"""Values of options that belong to modules which take long to import; tests/flaxapps/cli/test_options.py compares."""

MODES = ("default", "fast")  # of flaxapps.optimize
PRECISIONS = ("float32", "bfloat16")  # of flaxapps.optimize
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "hamming", "box", "lanczos")  # of flaxapps.image
CALIBRATIONS = ("minmax", "mse")  # of flaxapps.quantize
OPTIMIZERS = ("adam", "adamw", "lamb", "lion", "rmsprop", "sgd")  # of flaxapps.cli.finetune.optimizer
SCHEDULES = ("constant", "cosine", "linear", "staircase")
CLASS_WEIGHTS = ("balanced",)  # of flaxapps.train.fit
