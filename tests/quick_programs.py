"""Programs that compile in a quarter of the time, for tests that are not about what XLA makes of a program."""

from typing import Any

import jax
from jax._src import compiler

# Beside what jax_disable_most_optimizations sets, which takes off a third: most of the rest is MLIR, which writes the
# code of fusions, and what is small is done sooner by one thread. Newer versions of XLA know no other way.
OPTIONS: dict[str, bool | int] = {}
if jax.__version_info__ < (0, 11):
    OPTIONS = {"xla_cpu_use_fusion_emitters": False, "xla_cpu_parallel_codegen_split_count": 1}


def add_options() -> None:
    """From now on, under jax_disable_most_optimizations, programs for the CPU are compiled with these options too."""
    get_options = compiler.get_compile_options

    def get_quick_options(*args: Any, **options: Any) -> Any:
        backend = options.get("backend")
        if jax.config.read("jax_disable_most_optimizations") and backend is not None and backend.platform == "cpu":
            options["env_options_overrides"] = OPTIONS | (options.get("env_options_overrides") or {})
        return get_options(*args, **options)

    compiler.get_compile_options = get_quick_options
