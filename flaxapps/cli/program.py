"""Running a command, with error messages and exit codes."""

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import MappingProxyType
from typing import Any

import jax

from flaxapps.runtime.console import describe_error, printable

QUIET_LOGGERS = (
    "absl",
    "grain",
    "jax._src.xla_bridge",
    "orbax",
    "PIL",
    "matplotlib",
)  # what concerns users is raised or warned of
PLATFORMS = MappingProxyType({"cpu": "cpu", "gpu": "cuda", "tpu": "tpu"})  # of --device, as JAX names them


def run_command(run: Callable[[argparse.Namespace], int], program: str, arguments: argparse.Namespace) -> int:
    """Runs a command; errors are printed as one line on stderr.

    Args:
        run: The command; it returns the exit code.
        program: Prefix of that line.
        arguments: Parsed arguments.

    Returns:
        The exit code: the command's own, its `error_code` after an error, or 130 after an interruption.
    """
    device = vars(arguments).pop("device", None)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may hold characters the terminal cannot encode
    try:
        with warnings.catch_warnings(), _quiet(arguments.debug):
            warnings.showwarning = partial(_show_warning, program)
            if device is not None:
                _choose_device(device, arguments)
            code: int = run(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # as in `flaxapps list | head -1`
        # Python flushes stdout once more at exit, which would raise again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(arguments.error_code)
    except KeyboardInterrupt:
        if arguments.debug:
            raise
        print(f"{program}: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if arguments.debug:
            raise
        print(f"{program}: error: {printable(describe_error(error))}", file=sys.stderr)
        return int(arguments.error_code)


def _choose_device(name: str, arguments: argparse.Namespace) -> None:
    """Lets JAX use the devices of --device only. Must run before JAX starts.

    Raises:
        ValueError: There are none; not checked in runs of several processes, which start JAX later.
    """
    jax.config.update("jax_platforms", PLATFORMS[name])
    if getattr(arguments, "distributed", False) or getattr(arguments, "coordinator", None):
        return
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter where JAX was installed without the plugin
        raise ValueError(
            f"--device {name}: JAX finds none on this machine, or was installed without its packages (docs/install.md)"
        ) from error


@contextmanager
def _quiet(debug: bool) -> Iterator[None]:
    """Silences what libraries log below an error."""
    loggers = [] if debug else [logging.getLogger(name) for name in QUIET_LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _show_warning(program: str, message: Warning | str, *origin: Any) -> None:
    """Prints a warning as one line, without the line of code that it comes from."""
    print(f"{program}: {printable(' '.join(str(message).split()))}", file=sys.stderr)
