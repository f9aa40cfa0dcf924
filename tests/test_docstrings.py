"""Everything exported has a docstring that names its arguments, its result and its errors.

Ruff asks for docstrings, and for all arguments where some are listed; here the sections themselves are asked for.
"""

import ast
import importlib
import inspect
import re
import textwrap

import pytest

from flaxapps import list_models, model_info

PACKAGES = ("flaxapps", "weight_port")
MODULES = ("flaxapps.api", "weight_port", "flaxapps.train", "flaxapps.layers", "flaxapps.image", "flaxapps.explain")
ELSEWHERE = r"[Aa]s `[\w.]+`"  # the arguments are those of another function, which is named


def exported():
    """Every public function and class, under its full name."""
    found = {}
    for module in map(importlib.import_module, MODULES):
        is_package = module.__spec__.submodule_search_locations is not None or module.__name__ == "flaxapps.api"
        for name, value in vars(module).items():
            home = getattr(value, "__module__", None) or ""
            own = home.split(".")[0] in PACKAGES if is_package else home == module.__name__
            if not name.startswith("_") and callable(value) and own:
                found[f"{home}.{value.__name__}"] = value
    for info in map(model_info, list_models()):
        module = importlib.import_module(info.module)
        for name in (info.function, "preprocess_input", "decode_predictions"):
            found[f"{info.module}.{name}"] = getattr(module, name)
    return found


def methods(full_name, kind):
    """Public methods a class defines itself; what overrides a method has its documentation."""
    for name, value in vars(kind).items():
        function = inspect.unwrap(getattr(value, "__func__", value))
        overrides = any(name in vars(base) for base in kind.__mro__[1:] if base.__module__.split(".")[0] in PACKAGES)
        ours = getattr(function, "__module__", "").split(".")[0] in PACKAGES and function.__doc__ is not None
        if inspect.isfunction(function) and ours and not overrides and (not name.startswith("_") or name == "__call__"):
            yield f"{full_name}.{name}", function


EXPORTED = exported()
FUNCTIONS = {name: inspect.unwrap(value) for name, value in EXPORTED.items() if not inspect.isclass(value)}
CLASSES = {name: value for name, value in EXPORTED.items() if inspect.isclass(value)}
METHODS = {name: function for full, kind in CLASSES.items() for name, function in methods(full, kind)}


def missing(function):
    """What a docstring should have and has not."""
    text = function.__doc__ or ""
    signature = inspect.signature(function)
    arguments = [name for name in signature.parameters if name not in ("self", "cls")]
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    if not arguments or re.search(ELSEWHERE, text):
        return [] if text else ["docstring"]
    absent = [name for name in arguments if not re.search(rf"^ *\*{{0,2}}{name}: ", text, re.M)]
    if signature.return_annotation not in (None, "None") and not re.search("^ *(Returns|Yields):$", text, re.M):
        absent.append("Returns")
    raises = any(isinstance(node, ast.Raise) and node.exc is not None for node in ast.walk(tree))
    return [*absent, "Raises"] if raises and not re.search("^ *Raises:$", text, re.M) else absent


def test_exports_are_found():
    assert {model_info(name).function for name in list_models()} <= {name.rpartition(".")[2] for name in FUNCTIONS}
    some = {"flaxapps.train.loop.fit", "weight_port.loading.load_weights", "flaxapps.explain.grad_cam"}
    assert some <= set(FUNCTIONS)
    assert "flaxapps.model.Model.get_layer" in METHODS


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_classes_have_a_docstring_of_their_own(name):
    assert vars(CLASSES[name]).get("__doc__")


@pytest.mark.parametrize("name", sorted(FUNCTIONS | METHODS))
def test_functions_name_arguments_results_and_errors(name):
    assert not missing((FUNCTIONS | METHODS)[name])


def test_an_incomplete_docstring_is_noticed():
    def incomplete(first: int, second: int) -> int:
        """Adds.

        Args:
            first: A number.
        """
        if first < 0:
            raise ValueError
        return first + second

    assert missing(incomplete) == ["second", "Returns", "Raises"]
