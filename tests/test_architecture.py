"""The floors of the house: imports go down only, and every import is written as one."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.places import ROOT

# Each may import those before it, and modules of its own. Folders and files; the order of CONTRIBUTING's table.
FLOORS = (
    "weight_port",
    "flaxapps.ops",
    "flaxapps.runtime",
    "flaxapps.graph",
    "flaxapps.image",
    "flaxapps.layers",
    "flaxapps.drawing",
    "flaxapps.model",
    "flaxapps.transforms",
    "flaxapps.saving",
    "flaxapps.applications",
    "flaxapps.photos",
    "NETWORKS",
    "flaxapps.explain",
    "flaxapps.registry",
    "flaxapps.inference",
    "flaxapps.quantization",
    "flaxapps.train",
    "flaxapps.demo",
    "flaxapps.cli",
    "DOORS",  # what users import and run: re-exports, and `python -m`
)
DOORS = ("flaxapps", "flaxapps.api", "flaxapps.__main__", "weight_port.__main__")
LAZY = ("flaxapps", "flaxapps.cli.commands")  # import the rest when it is needed: `flaxapps --help` takes 0.1 s
LARGEST_FOLDER = 24  # source files, __init__.py included


def sources() -> Iterator[tuple[str, Path]]:
    """Every module of the packages, by its name."""
    for package, folder in (("flaxapps", "flaxapps"), ("weight_port", "weight_port"), ("flaxapps.train", "train")):
        for path in sorted((ROOT / folder).rglob("*.py")):
            inside = path.relative_to(ROOT / folder).with_suffix("").parts
            if package == "flaxapps" and inside[0] == "train":  # the link to the folder that comes last here
                continue
            yield ".".join([package, *(part for part in inside if part != "__init__")]), path


MODULES = dict(sources())


def imports(module: str) -> Iterator[tuple[int, str]]:
    """Our own modules that one imports, with the line; in functions too."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                if name in MODULES or node.module in MODULES:
                    yield node.lineno, name if name in MODULES else node.module


def floor(module: str) -> int:
    """The number of the floor of a module."""
    if module in DOORS:
        return FLOORS.index("DOORS")
    for number, name in enumerate(FLOORS):
        if module == name or module.startswith(f"{name}."):
            return number
    assert module.count(".") == 1, f"{module} is on no floor"
    return FLOORS.index("NETWORKS")


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module):
    upwards = [f"line {line}: {name}" for line, name in imports(module) if floor(name) > floor(module)]
    assert not upwards


def test_there_is_no_circle():
    edges = {module: {name for _, name in imports(module)} - {module} for module in MODULES}
    while free := [module for module, used in edges.items() if not used]:
        for module in free:
            del edges[module]
        for used in edges.values():
            used.difference_update(free)
    assert not edges


def test_no_module_is_imported_by_its_name():
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())) if module not in LAZY else ():
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
                name = ast.literal_eval(node.args[0])  # of other packages, in full
                assert not name.startswith(("flaxapps", "weight_port", "train")), f"{module}, line {node.lineno}"


def test_our_modules_are_imported_at_the_top():
    for module, path in MODULES.items():
        statements = [
            node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        top = {line for node in statements for line in range(node.lineno, node.end_lineno + 1)}
        inside = [line for line, _ in imports(module) if line not in top]
        assert not inside or module in LAZY, f"{module}: lines {inside}"


def test_folders_are_small():
    counts = {}
    for path in MODULES.values():
        counts[path.parent] = counts.get(path.parent, 0) + 1
    assert {str(folder): count for folder, count in counts.items() if count > LARGEST_FOLDER} == {}
