"""`flaxapps export`: write a network as a StableHLO file."""

import argparse

from flaxapps.cli.models import adapted, architecture_options, resolve_model
from flaxapps.inference.export import export


def run(arguments: argparse.Namespace) -> int:
    """Runs `flaxapps export`."""
    if arguments.dtype in ("uint8", "int8", "int16", "int32"):  # which --dtype took before it was that of all commands
        raise ValueError(f"--dtype is that of the computation: give --image-dtype {arguments.dtype} for the images")
    of_network = architecture_options(arguments)
    resolved = resolve_model(arguments.model, weights=arguments.weights, preprocess=arguments.preprocess, **of_network)
    model = adapted(resolved.model, arguments)
    preprocess = resolved.preprocess  # raises before the weights are downloaded
    export(
        model,
        resolved.load(),
        arguments.output,
        dtype=arguments.image_dtype,
        preprocess=preprocess,
        platforms=arguments.platforms,
        weights="beside" if arguments.weights_beside else "inside",
    )
    print(f"{arguments.output} is written, for {', '.join(arguments.platforms)}")
    return 0
