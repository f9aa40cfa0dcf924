"""A hook of MkDocs: the pages that say what the code says are made from it while the site is built.

A page for each network (facts, blocks, layers, weight files) and the reference of every exported name.
"""

import importlib
from collections.abc import Iterator
from html import escape
from pathlib import Path
from types import ModuleType

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from flaxapps.model import Model
from flaxapps.plotting import draw
from flaxapps.registry import ModelInfo, build_model, list_models, model_info
from flaxapps.summary import rows
from weight_port.published import PublishedFile

SCALING = Path(__file__).parent.parent / "SCALING.md"  # it stands beside the README
PACKAGES = ("flaxapps", "train", "weight_port")
PREPROCESSING = {"caffe": "BGR, mean subtracted", "tf": "-1 to 1", "torch": "normalized with mean and deviation"}
LAYER_HEADINGS = ("#", "layer", "kind", "output shape", "parameters", "connected to")
REFERENCES = {
    "flaxapps": ("flaxapps", "Models and what is done with them."),
    "layers": ("flaxapps.layers", "Keras's layers, with Keras's arguments. Calling one on a node records it."),
    "image": ("flaxapps.image", "Photos from files to arrays and back."),
    "explain": ("flaxapps.explain", "Which parts of an image speak for a class."),
    "train": ("train", "Fine-tuning."),
    "weight_port": ("weight_port", "Weight files to trees of arrays and back, without JAX and without Keras."),
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds what is made to the pages that are written."""
    for path, content in pages():
        files.append(File.generated(config, path, content=content))
    return files


def pages() -> Iterator[tuple[str, str]]:
    """Every page and picture: its path in `docs` and its text."""
    infos = [model_info(name) for name in list_models()]
    yield "networks/index.md", networks_page(infos)
    for info in infos:
        model = build_model(info.name)
        yield f"networks/{info.name}.md", network_page(info, model)
        title, page = f"All layers of {info.function}", f"{info.name}/"
        picture = draw(model.graph, title, full=True, link=lambda name, page=page: f"{page}#{anchor(name)}")
        yield f"networks/{info.name}.svg", picture
    yield "scaling.md", SCALING.read_text(encoding="utf-8").replace("](docs/", "](")
    for page, (module, summary) in REFERENCES.items():
        yield f"reference/{page}.md", reference_page(importlib.import_module(module), summary)


def anchor(layer: str) -> str:
    """Where a layer stands in the table of its network's page."""
    return f"layer-{layer}"


def networks_page(infos: list[ModelInfo]) -> str:
    """All networks in one table."""
    lines = [
        "# Networks",
        "",
        "Accuracies are as Keras publishes them (ILSVRC2012 validation, single crop).",
        "",
        "| network | size MB | top-1 | top-5 | parameters | default size | smallest | preprocessing |",
        "|---|--:|--:|--:|--:|--:|--:|---|",
    ]
    for info in infos:
        size = f"{info.weight_files[0].size / 2**20:.0f}"
        accuracy = f"{info.top1}% | {info.top5}%"
        sizes = f"{info.default_size} | {info.min_size}"
        lines.append(
            f"| [{info.function}]({info.name}.md) | {size} | {accuracy} | {info.parameters:,} | {sizes} "
            f"| {PREPROCESSING[info.preprocessing]} |"
        )
    return "\n".join([*lines, ""])


def network_page(info: ModelInfo, model: Model) -> str:
    """One network."""
    blocks = draw(model.graph, f"The blocks of {info.function}", link=lambda name: f"#{anchor(name)}")
    formats = "channels_last, channels_first" if info.channels_first else "channels_last"
    files = "\n".join(map(file_row, info.weight_files))
    headings = "".join(f"<th>{heading}</th>" for heading in LAYER_HEADINGS)
    return f"""# {info.function}

```text
from flaxapps.{info.name} import {info.function}, preprocess_input, decode_predictions
```

| paper | [{info.reference.removeprefix("https://")}]({info.reference}) |
|---|---|
| default image size | {info.default_size} x {info.default_size} |
| smallest image size | {info.min_size} x {info.min_size} (`min_size=` lowers it, down to {info.possible_size}) |
| preprocessing | `{info.preprocessing}`: {PREPROCESSING[info.preprocessing]} |
| data formats | {formats} |
| parameters | {info.parameters:,} with the classifier |
| top-1, top-5 | {info.top1}%, {info.top5}% (ILSVRC2012 validation, as published by Keras) |

The arguments are in the [reference](../reference/flaxapps.md#{function_anchor(info)}).

## Blocks

Each box leads to its last layer below, and says more under the mouse. With every layer:
[{info.name}.svg]({info.name}.svg), which `flaxapps plot {info.name} --full --output {info.name}.svg` draws too.

<div class="diagram" data-search-exclude>{blocks}</div>

## Weights

| file | classifier | size MB | licence |
|---|---|--:|---|
{files}

## Layers

In Keras's order: indices and names are those of `model.layers`.

<div class="layers" data-search-exclude><table>
<thead><tr>{headings}</tr></thead>
<tbody>
{layer_rows(model)}
</tbody></table></div>
"""


def function_anchor(info: ModelInfo) -> str:
    """Where the network's function stands in the reference."""
    return f"flaxapps.{info.name}.{info.function}"


def file_row(file: PublishedFile) -> str:
    """One published weight file."""
    variant = f' (`variant="{file.variant}"`)' if file.variant else ""
    top = "yes" if file.include_top else "no"
    name = f"[{file.filename}]({file.url}){variant}<br>MD5 `{file.md5}`"
    return f"| {name} | {top} | {file.size / 2**20:.1f} | {file.licence} |"


def layer_rows(model: Model) -> str:
    """The table of `model.summary()`."""
    lines = []
    for number, name, *rest in rows(model.graph):
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in (number, name, *rest))
        lines.append(f'<tr id="{escape(anchor(name))}">{cells}</tr>')
    return "\n".join(lines)


def reference_page(module: ModuleType, summary: str) -> str:
    """The docstrings of everything a module exports."""
    names = public_names(module)
    if module.__name__ == "flaxapps":
        names += [function_anchor(info) for info in map(model_info, list_models())]
    # What a layer computes is Keras's affair; its arguments are what one looks up.
    options = "\n    options:\n      members: false" if module.__name__ == "flaxapps.layers" else ""
    entries = "\n\n".join(f"::: {name}{options}" for name in names)
    return f"# {module.__name__}\n\n{summary}\n\n{entries}\n"


def public_names(module: ModuleType) -> list[str]:
    """Full names, where they are defined, of the functions and classes that a module exports."""
    names = set()
    for name, value in vars(module).items():
        home = getattr(value, "__module__", None) or ""
        package = home.split(".")[0]
        own = home == module.__name__ or module.__spec__.submodule_search_locations is not None
        if not name.startswith("_") and callable(value) and package in PACKAGES and own:
            names |= {f"{home}.{value.__name__}", f"{home}.{name}"}  # two, where it is another function compiled
    return sorted(names, key=lambda full: full.rpartition(".")[2].lower())
