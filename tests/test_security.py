"""Nothing in the packages runs code that came from elsewhere."""

import ast
from collections.abc import Iterator

import pytest

from tests.places import ROOT

MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "pty", "pexpect"}
BUILTINS = {"eval", "exec", "compile", "__import__", "breakpoint"}
OF_OS = {"system", "popen", "spawnl", "spawnle", "spawnv", "spawnve", "execl", "execle", "execv", "execve", "execvp"}
OF_SUBPROCESS = {"getoutput", "getstatusoutput"}
UNSAFE_LOADERS = {"unsafe_load", "full_load", "UnsafeLoader", "FullLoader"}  # of YAML


def dangers(source: str) -> Iterator[tuple[int, str]]:
    """Lines of a program that run what a file or a text says, and what they do it with."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, each.name) for each in names if each.name.split(".")[0] in MODULES)
            case ast.ImportFrom(module=str(module), names=names):
                if module.split(".")[0] in MODULES:
                    yield node.lineno, module
                forbidden = {"os": OF_OS, "subprocess": OF_SUBPROCESS, "yaml": UNSAFE_LOADERS, "builtins": BUILTINS}
                yield from ((node.lineno, each.name) for each in names if each.name in forbidden.get(module, ()))
            case ast.Name(id=name) if name in BUILTINS:
                yield node.lineno, name
            case ast.Attribute(value=ast.Name(id="os"), attr=name) if name in OF_OS:
                yield node.lineno, f"os.{name}"
            case ast.Attribute(value=ast.Name(id="builtins"), attr=name) if name in BUILTINS:
                yield node.lineno, f"builtins.{name}"
            case ast.Attribute(attr=name) if name in OF_SUBPROCESS | UNSAFE_LOADERS:
                yield node.lineno, name
            case ast.keyword(arg="shell" | "allow_pickle", value=value):
                if not (isinstance(value, ast.Constant) and value.value is False):
                    yield node.lineno, f"{node.arg}={ast.unparse(value)}"


@pytest.mark.parametrize("package", ["flaxapps", "train", "weight_port"])
def test_no_code_from_elsewhere_is_run(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert files
    assert [(path.name, *found) for path in files for found in dangers(path.read_text())] == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from cloudpickle import loads",
        "import marshal as m",
        "eval('1')",
        "run = exec",
        "os.system('ls')",
        "from os import popen",
        "subprocess.run('ls', shell=True)",
        "np.load(path, allow_pickle=allowed)",
        "subprocess.getoutput('ls')",
        "yaml.load(text, yaml.UnsafeLoader)",
        "__import__(name)",
    ],
)
def test_every_such_way_is_seen(source: str) -> None:
    assert list(dangers(source))


def test_what_is_harmless_is_not() -> None:
    assert not list(dangers("np.load(path, allow_pickle=False)\nre.compile('a')\nmodel.eval_step()\nimport json"))
