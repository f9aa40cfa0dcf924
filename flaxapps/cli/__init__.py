"""Command line of flaxapps, flaxapps.train and weight_port."""

from flaxapps.cli.commands import main as main
