"""MkDocs hook: generate pages from the code while the site is built.

These are a page for each network (facts, blocks, layers, weight files) and the reference of every exported name.
"""

import importlib
import json
import re
from collections.abc import Iterator
from html import escape
from inspect import signature
from pathlib import Path
from types import ModuleType

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from flaxapps import ResNet50
from flaxapps.applications.imagenet_utils import PREPROCESSING
from flaxapps.applications.info import ModelInfo
from flaxapps.drawing.svg import draw
from flaxapps.graph.summary import rows
from flaxapps.model import Model
from flaxapps.registry import build_model, get_application, list_models, model_info
from weight_port.published import PublishedFile

MEASURED = Path(__file__).parent / "pictures" / "networks.json"  # written by `python -m tests.benchmarks.catalogue`
SCALING = Path(__file__).parent.parent / "SCALING.md"  # in the repository root, beside the README
PACKAGES = ("flaxapps", "weight_port")
LAYER_HEADINGS = ("#", "layer", "kind", "output shape", "parameters", "connected to")
# Of `flaxapps.train`, in the order in which a user needs them; names that are not here come last.
TASKS = {
    "Train": ("fit", "FitResult", "EarlyStopping", "CheckpointFolder", "Computation", "Devices", "FeatureCache"),
    "Evaluate": ("evaluate",),
    "Read data": ("image_folder", "image_table", "ArrayDataset", "as_dataset", "Dataset", "Augmentation"),
    "Keep class names": ("save_class_names", "load_class_names"),
    "Freeze layers": ("frozen_layers", "trainable_mask", "param_labels", "split_params", "merge_params"),
    "Cache features": ("compute_features", "split_at_frozen", "FeatureDataset"),
    "Watch a run": ("CSVLog", "TensorBoard", "ProgressDisplay", "StepEnd", "EpochEnd", "write_csv"),
    "Handle errors": ("TrainingError", "CheckpointError", "Interrupted"),
    "Write your own loop": (
        "train_step",
        "eval_step",
        "create_state",
        "TrainState",
        "make_objective",
        "Objective",
        "dynamic_loss_scale",
        "last_activation",
        "without_last_activation",
    ),
    "Losses and metrics": (
        "categorical_crossentropy",
        "sparse_categorical_crossentropy",
        "binary_crossentropy",
        "accuracy",
        "top_k_accuracy",
        "confusion_matrix",
        "add_sums",
        "summarise",
        "Mean",
    ),
}
REFERENCES = {
    "flaxapps": ("flaxapps.api", "Build, run, load, save and transform models."),
    "layers": ("flaxapps.layers", "Keras's layers and their arguments. Call a layer on a node to add it to the graph."),
    "image": ("flaxapps.image", "Load and save photos as arrays."),
    "explain": ("flaxapps.explain", "Attribution: which parts of an image support a class."),
    "train": ("flaxapps.train", "Fine-tuning and evaluation."),
    "weight_port": ("weight_port", "Read and write Keras weight files as trees of arrays, without JAX or Keras."),
}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Adds the pages of the networks to the navigation, below the overview."""
    for entry in config.nav or []:
        if isinstance(entry, dict) and "Networks" in entry:
            infos = map(model_info, list_models())
            entry["Networks"] = ["networks/index.md", *({info.function: f"networks/{info.name}.md"} for info in infos)]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages to the written ones."""
    for path, content in pages():
        files.append(File.generated(config, path, content=content))
    return files


def pages() -> Iterator[tuple[str, str]]:
    """Yields the path in `docs` and the text of every generated page and picture."""
    infos = [model_info(name) for name in list_models()]
    yield "networks/index.md", networks_page(infos)
    for info in infos:
        model = build_model(info.name, input_shape=(info.default_size, info.default_size, 3))
        yield f"networks/{info.name}.md", network_page(info, model)
        title, page = f"All layers of {info.function}", f"{info.name}/"
        picture = draw(model.graph, title, full=True, link=lambda name, page=page: f"{page}#{anchor(name)}")
        yield f"networks/{info.name}.svg", picture
    yield "scaling.md", SCALING.read_text(encoding="utf-8").replace("](docs/", "](").replace(".ipynb)", ".md)")
    for page, (module, summary) in REFERENCES.items():
        yield f"reference/{page}.md", reference_page(importlib.import_module(module), summary)


BREAKS = re.compile(r"(?<=[_/])|(?<=[a-z])(?=[A-Z])")  # where names of layers and kinds may break in a narrow table


def anchor(layer: str) -> str:
    """Returns the anchor of a layer on the page of its network; that of a nested model for the layers inside it."""
    return f"layer-{layer.partition('/')[0]}"


def networks_page(infos: list[ModelInfo]) -> str:
    """Formats the table of all networks, with what was measured of each."""
    report = json.loads(MEASURED.read_text(encoding="utf-8"))
    machine, measured = report["machine"], report["networks"]
    lines = [
        "# Networks",
        "",
        "Accuracies are as Keras publishes them (ILSVRC2012 validation, single crop). GFLOP are the operations for one "
        "image of the default size, as XLA counts them: a multiply-add is two. Images per second were measured in "
        f"one run ({machine['processor']}, {machine['cores']} cores, {machine['date']}, jax {machine['jax']}, "
        f'batches of {machine["batch"]}, float32, `compile(optimize="default")`, random weights).',
        "",
        "![Accuracy of all networks against images per second: MobileNets and the smaller EfficientNets are the "
        "fastest at each accuracy, ConvNeXt and the larger EfficientNets the most accurate](../pictures/networks.svg)",
        "",
        '<div class="networks" markdown>',
        "",
        "| network | size MB | top-1 | top-5 | parameters | size | smallest | GFLOP | images/s | pixels |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|---|",
    ]
    for info in infos:
        size, parameters = f"{info.parameters * 4 / 2**20:.0f}", f"{info.parameters / 1e6:.1f}M"
        accuracy = f"{percent(info.top1)} | {percent(info.top5)}"
        sizes = f"{info.default_size} | {info.min_size}"
        costs = f"{measured[info.name]['gflop']:.3g} | {measured[info.name]['images_per_second']:.3g}"
        lines.append(
            f"| [{info.function}]({info.name}.md) | {size} | {accuracy} | {parameters} | {sizes} | {costs} "
            f"| {PREPROCESSING[info.preprocessing]} |"
        )
    return "\n".join([*lines, "", "</div>", ""])


def network_page(info: ModelInfo, model: Model) -> str:
    """Formats the page of one network."""
    blocks = draw(model.graph, f"The blocks of {info.function}", link=lambda name: f"#{anchor(name)}")
    formats = "channels_last, channels_first" if info.channels_first else "channels_last"
    files = "\n".join(map(file_row, info.weight_files))
    headings = "".join(f"<th>{heading}</th>" for heading in LAYER_HEADINGS)
    return f"""# {info.function}

```text
from {info.module} import {info.function}, preprocess_input, decode_predictions
```

| paper | [{info.reference.removeprefix("https://")}]({info.reference}) |
|---|---|
| default image size | {info.default_size} x {info.default_size} |
| smallest image size | {info.min_size} x {info.min_size} (`min_size=` lowers it, down to {info.possible_size}) |
| preprocessing | `{info.preprocessing}`: {PREPROCESSING[info.preprocessing]} |
| data formats | {formats} |
| parameters | {info.parameters:,} with the classifier |
| top-1, top-5 | {percent(info.top1)}, {percent(info.top5)} (ILSVRC2012 validation, as published by Keras) |

The arguments are in the [reference](../reference/flaxapps.md#{function_anchor(info)}).

## Blocks

Each box links to its last layer below, and shows details on hover. A diagram of all layers:
[{info.name}.svg]({info.name}.svg), also drawn by `flaxapps plot {info.name} --full --output {info.name}.svg`.

<div class="diagram" data-search-exclude>{blocks}</div>

## Feature maps

The table lists the last layer of every size, for images of {info.default_size} x {info.default_size}. To compute one,
use `Model(model.input, model.get_layer(NAME).output)`, or `flaxapps predict --layer NAME --format npz`
([more](../how/features.md)).

| layer | height x width x channels | image / feature map |
|---|---|--:|
{feature_rows(model)}

## Weights

| file | classifier | size MB | licence |
|---|---|--:|---|
{files}

## Layers

Layers have Keras's order, and the indices and names of `model.layers`. Shapes are for images of the default size.

<div class="layers" data-search-exclude><table>
<thead><tr>{headings}</tr></thead>
<tbody>
{layer_rows(model)}
</tbody></table></div>
"""


def feature_rows(model: Model) -> str:
    """Formats the rows of the last layer of every size of feature maps, and of the feature vector."""
    last: dict[tuple[int, ...], str] = {}
    for layer in model.layers[1:]:
        if len(layer.output_shape) == 4:
            last[layer.output_shape[1:3]] = f"| `{layer.name}` | {' x '.join(map(str, layer.output_shape[1:]))} |"
    height = model.input_shape[1]
    maps = [f"{row} {round(height / size[0])} |" for size, row in last.items() if size[0] > 1]
    vectors = [each for each in model.layers if each.class_name == "GlobalAveragePooling2D"]
    return "\n".join([*maps, *(f"| `{each.name}` | {each.output_shape[-1]} | |" for each in vectors[-1:])])


def function_anchor(info: ModelInfo) -> str:
    """Returns the anchor of the network's function in the reference."""
    return f"{info.module}.{info.function}"


def percent(accuracy: float | None) -> str:
    """Formats an accuracy, or a dash if none is published."""
    return "-" if accuracy is None else f"{accuracy}%"


def file_row(file: PublishedFile) -> str:
    """Formats the row of a published weight file."""
    variant = f' (`variant="{file.variant}"`)' if file.superseded else ""
    top = "yes" if file.include_top else "no"
    name = f"[{file.filename}]({file.url}){variant}<br>{file.published_hash.replace(' ', ' `')}`"
    size = f"{file.size / 2**20:.1f}" if file.size else "-"
    return f"| {name} | {top} | {size} | {file.licence} |"


def layer_rows(model: Model) -> str:
    """Formats the rows of `model.summary()` as HTML."""
    lines = []
    for number, name, *rest in rows(model.graph):
        cells = "".join(f"<td>{BREAKS.sub('<wbr>', escape(cell))}</td>" for cell in (number, name, *rest))
        lines.append(f'<tr id="{escape(anchor(name))}">{cells}</tr>')
    return "\n".join(lines)


def reference_page(module: ModuleType, summary: str) -> str:
    """Formats the reference page of everything a module exports."""
    names = public_names(module)
    if module.__name__ == "flaxapps.api":
        names.append("flaxapps.applications.application.Application")
    if module.__name__ == "flaxapps.train":
        return f"# {module.__name__}\n\n{summary}\n\n{by_task(names)}\n"
    # The methods of a layer are internal; users need its arguments only.
    options = "\n    options:\n      members: false" if module.__name__ == "flaxapps.layers" else ""
    entries = "\n\n".join(f"::: {name}{options}" for name in names)
    if module.__name__ == "flaxapps.api":
        entries += "\n\n" + "\n\n".join(map(network_entry, map(model_info, list_models())))
    return f"# {module.__name__.removesuffix('.api')}\n\n{summary}\n\n{entries}\n"


def by_task(names: list[str]) -> str:
    """Formats the reference of `flaxapps.train`: its names below the task that they are for."""
    rest = dict.fromkeys(names)
    lines = []
    for task, wanted in TASKS.items():
        found = [full for name in wanted for full in names if full.rpartition(".")[2] == name]
        lines += [f"## {task}", "", *(f"{entry(full)}\n" for full in dict.fromkeys(found))]
        for full in found:
            rest.pop(full, None)
    return "\n".join([*lines, "## Other", "", *(f"{entry(full)}\n" for full in rest)])


def entry(name: str) -> str:
    """Formats the directive of one name, a level below its task."""
    return f"::: {name}\n    options:\n      heading_level: 3"


def network_entry(info: ModelInfo) -> str:
    """Formats the reference of a network's function: its docstring, or a link to one with the same arguments."""
    heading = f"## {info.function} {{ #{function_anchor(info)} }}\n\n`{function_anchor(info)}`"
    network = f"[the network](../networks/{info.name}.md)"
    arguments = signature(get_application(info.name))
    if arguments == signature(ResNet50):
        same = "[`Application`](#flaxapps.applications.application.Application)"
    else:
        first = next(
            each for each in map(model_info, list_models()) if signature(get_application(each.name)) == arguments
        )
        if first is info:
            given = ", ".join(f"{each.name}={each.default!r}" for each in arguments.parameters.values())
            text = f"{info.function}({given})\n\n{get_application(info.name).__doc__}"
            return f"{heading}; {network}.\n\n```text\n{text}```"
        same = f"[`{first.function}`](#{function_anchor(first)})"
    return f"{heading}, with the arguments of {same}; {network}."


def public_names(module: ModuleType) -> list[str]:
    """Returns the full names of the functions and classes that a module exports, by the module that defines them."""
    names = set()
    for name, value in vars(module).items():
        home = getattr(value, "__module__", None) or ""
        package = home.split(".")[0]
        own = (
            home == module.__name__
            or module.__name__ == "flaxapps.api"
            or module.__spec__.submodule_search_locations is not None
        )
        network = hasattr(value, "info")  # made by a function, so that its source has no signature
        if not name.startswith("_") and callable(value) and package in PACKAGES and own and not network:
            names |= {f"{home}.{value.__name__}", f"{home}.{name}"}  # two for compiled functions
    return sorted(names, key=lambda full: full.rpartition(".")[2].lower())
