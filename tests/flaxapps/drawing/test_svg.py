"""Pictures of networks: valid, complete, with the edges of the graph, and nothing on top of anything else."""

import itertools
from xml.etree import ElementTree

import numpy as np
import pytest

from flaxapps import Input, Model, layers
from flaxapps.cli.commands import main
from flaxapps.drawing.blocks import boxes
from flaxapps.drawing.layout import lay_out
from flaxapps.drawing.svg import TIMES, draw
from flaxapps.registry import build_model
from tests.networks import NETWORKS

SVG = "{http://www.w3.org/2000/svg}"


def picture(model, **options):
    return ElementTree.fromstring(draw(model.graph, "picture", **options))


def drawn_boxes(root):
    return [group for group in root.iter(f"{SVG}g") if group.get("id")]


def drawn_names(root):
    return [group.get("id") for group in drawn_boxes(root)]


def drawn_edges(root):
    paths = [path for path in root.iter(f"{SVG}path") if path.get("class") == "edge"]
    return [(path.get("data-source"), path.get("data-target")) for path in paths]


def rectangles(root):
    """Left, top, right and bottom of every box."""
    numbers = [[float(one.get(key)) for key in ("x", "y", "width", "height")] for one in root.iter(f"{SVG}rect")]
    return np.array([(x, y, x + width, y + height) for x, y, width, height in numbers])


def overlapping(corners):
    """Whether any two boxes have a point in common."""
    left, top, right, bottom = corners.T
    apart = (right[:, None] <= left) | (right <= left[:, None]) | (bottom[:, None] <= top) | (bottom <= top[:, None])
    return bool((~apart & ~np.eye(len(corners), dtype=bool)).any())


def everything(model):
    """Names of the layers and of the operations between them, and the edges."""
    calls, names, edges = [call for layer in model.layers for call in layer.calls], set(), set()
    while calls:
        call = calls.pop()
        names.add(call.layer.name)
        edges |= {(node.layer.name, call.layer.name) for node in call.inputs}
        calls += [node.call for node in call.inputs if node.layer.name not in names]
    return sorted(names), edges


def nested(model):
    """The models inside a model, with their layers."""
    return [layer for layer in model.layers if hasattr(layer.layer, "graph")]


def branching():
    image = Input((8, 8, 3), name="image")
    left = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same", name="left")(image)))
    right = layers.Conv2D(4, 1, name="right")(image)
    x = layers.Add(name="sum")([left, right])
    return Model(image, layers.Dense(2, name="scores")(layers.Flatten(name="flatten")(x)))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_of_a_network_is_there_once(name):
    model = build_model(name)
    root = picture(model, full=True)
    names, wanted = everything(model)
    inside = {layer.name: [f"{layer.name}/{each.name}" for each in layer.layers[1:]] for layer in nested(model)}
    assert sorted(drawn_names(root)) == sorted(part for name in names for part in inside.get(name, [name]))
    edges = drawn_edges(root)
    if not inside:
        assert len(edges) == len(wanted)
        assert set(edges) == wanted
    assert not overlapping(rectangles(root))


@pytest.mark.parametrize("name", NETWORKS)
def test_blocks_hold_every_layer_once(name):
    model = build_model(name)
    blocks = boxes(model.graph, full=False)
    assert sorted(part.name for box in blocks for part in box.parts) == everything(model)[0]
    assert drawn_names(picture(model)) == [box.name for box in blocks]
    assert not overlapping(rectangles(picture(model)))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vgg16", "input_layer block1 block2 block3 block4 block5 flatten fc1 fc2 predictions"),
        ("xception", f"input_layer {' '.join(f'block{n}' for n in range(1, 15))} avg_pool predictions"),
        (
            "inception_v3",
            "input_layer conv2d conv2d_1 conv2d_2 max_pooling2d conv2d_3 conv2d_4 max_pooling2d_1 "
            f"{' '.join(f'mixed{n}' for n in range(11))} avg_pool predictions",
        ),
        (
            "resnet50",
            "input_layer conv1 pool1 "
            + " ".join(f"conv{stage}_block{n + 1}" for stage, count in enumerate([3, 4, 6, 3], 2) for n in range(count))
            + " avg_pool predictions",
        ),
    ],
)
def test_blocks_are_those_of_the_papers(name, expected):
    blocks = boxes(build_model(name).graph, full=False)
    assert [box.name for box in blocks] == expected.split()
    assert [box.sources for box in blocks[1:]] == [(index,) for index in range(len(blocks) - 1)]


def test_edges_and_texts_of_a_small_graph():
    root = picture(branching())
    assert drawn_names(root) == ["image", "sum", "flatten", "scores"]
    assert drawn_edges(root) == [("image", "sum"), ("sum", "flatten"), ("flatten", "scores")]
    block = drawn_boxes(root)[1]
    assert [text.text for text in block.iter(f"{SVG}text")] == [
        "sum",
        f"2 {TIMES} Conv2D, Add",
        f"8 {TIMES} 8 {TIMES} 4",
    ]
    lines = block.find(f"{SVG}title").text.splitlines()
    assert f"left: Conv2D, 8 {TIMES} 8 {TIMES} 4, 112 parameters" in lines
    assert lines[-1] == "5 layers, 144 parameters"


def test_blocks_end_at_outputs_and_begin_after_inputs():
    one, two = Input((4,), name="one"), Input((4,), name="two")
    hidden = [layers.Dense(3, name=f"block1_{index}")(node) for index, node in enumerate([one, two])]
    joined = layers.Concatenate(name="joined")(hidden)
    model = Model([one, two], [joined, layers.ReLU()(joined)])
    assert [box.name for box in boxes(model.graph, full=False)] == [
        "one", "two", "block1_0", "block1_1", "joined", "re_lu"
    ]  # fmt: skip # kept on few lines on purpose


def test_a_cut_graph_starts_at_the_layer_it_was_cut_after():
    model = branching()
    head = Model(model.get_layer("sum").output, model.output)
    first = boxes(head.graph, full=True)[0]
    assert (first.name, first.parts[0].parameters, first.sources) == ("sum", 0, ())


def test_nested_models_are_one_box_or_all_their_layers():
    image = Input((8, 8, 3), name="photo")
    inner = Model(*(lambda x: (x, layers.Conv2D(2, 3, name="conv")(x)))(Input((8, 8, 3))), name="inner")
    model = Model(image, layers.Flatten(name="flat")(inner(image)))
    assert drawn_names(picture(model)) == ["photo", "inner", "flat"]
    root = picture(model, full=True)
    assert drawn_names(root) == ["photo", "inner/conv", "flat"]
    assert drawn_edges(root) == [("photo", "inner/conv"), ("inner/conv", "flat")]
    assert boxes(model.graph, full=False)[1].parts[0].parameters == inner.count_params()


def test_every_call_of_a_shared_layer_is_drawn_and_its_parameters_counted_once():
    x = Input((4,), name="x")
    shared = layers.Dense(4, name="shared")
    model = Model(x, shared(layers.ReLU(name="between")(shared(x))))
    parts = [box.parts[0] for box in boxes(model.graph, full=True)]
    assert [(part.name, part.parameters) for part in parts] == [
        ("x", 0), ("shared", 20), ("between", 0), ("shared (2)", 0)
    ]  # fmt: skip # kept on few lines on purpose


def test_text_is_escaped():
    x = Input((4,), name="a<b")
    root = picture(Model(x, layers.Dense(1, name="\"x\" & 'y'")(x)), link=lambda name: f"page?a=1&b=<{name}>")
    assert drawn_names(root) == ["a<b", "\"x\" & 'y'"]
    assert [a.get("href") for a in root.iter(f"{SVG}a")] == ["page?a=1&b=<a<b>", "page?a=1&b=<\"x\" & 'y'>"]


def test_a_block_leads_to_its_last_layer():
    root = picture(branching(), link=lambda name: f"#layer-{name}")
    assert [a.get("href") for a in root.iter(f"{SVG}a")][1] == "#layer-sum"


def test_free_sizes_and_no_sizes_are_named():
    image = Input((None, None, 3), name="image")
    root = picture(Model(image, layers.Conv2D(4, 3, name="conv")(image)))
    assert [text.text for text in root.iter(f"{SVG}text")][-1] == f"any {TIMES} any {TIMES} 4"


def test_a_long_edge_goes_around_boxes():
    chain = [()] + [(index,) for index in range(6)] + [(6, 0)]
    layout = lay_out([40.0] * 8, chain, gap=10)
    assert layout.rows == list(range(8))
    for row, x in layout.routes[0, 7][1:-1]:
        assert abs(x - layout.centres[row]) >= 20 + 5


@pytest.mark.parametrize("seed", range(5))
def test_no_boxes_overlap_in_random_graphs(seed):
    random = np.random.default_rng(seed)
    sources = [tuple({int(x) for x in random.integers(0, index, min(index, 3))}) for index in range(30)]
    widths = random.uniform(20, 200, 30)
    layout = lay_out(list(widths), sources, gap=7)
    for one, other in itertools.combinations(range(30), 2):
        if layout.rows[one] == layout.rows[other]:
            distance = abs(layout.centres[one] - layout.centres[other])
            assert distance >= (widths[one] + widths[other]) / 2 + 7 - 1e-6
    assert all(layout.rows[source] < layout.rows[index] for index, before in enumerate(sources) for source in before)
    assert min(layout.centres - widths / 2) >= -1e-6


def random_model(seed):
    """One or two inputs, twenty layers in blocks of names, one or two outputs."""
    random = np.random.default_rng(seed)
    nodes = [Input((4,), name=f"image{number}") for number in range(random.integers(1, 3))]
    inputs = list(nodes)
    for number in range(20):
        name = f"block{number // 5}_{number}" if random.random() < 0.7 else None
        near = nodes[-3:]
        if random.random() < 0.3 and len(near) > 1:
            nodes.append(layers.Add(name=name)([near[0], near[-1]]))
        else:
            nodes.append(layers.ReLU(name=name)(near[random.integers(len(near))]))
    return Model(inputs, [nodes[-1], *nodes[-9:-8][: random.integers(0, 2)]])


@pytest.mark.parametrize("seed", range(25))
def test_blocks_of_random_graphs(seed):
    model = random_model(seed)
    every, blocks = boxes(model.graph, full=True), boxes(model.graph, full=False)
    assert [part.name for box in blocks for part in box.parts] == [box.name for box in every]
    assert len({box.name for box in blocks}) == len(blocks)
    block_of = {part.name: number for number, box in enumerate(blocks) for part in box.parts}
    pairs = {(block_of[every[source].name], block_of[box.name]) for box in every for source in box.sources}
    wanted = {(source, target) for source, target in pairs if source != target}
    assert {(source, target) for target, box in enumerate(blocks) for source in box.sources} == wanted
    assert all(source < target for source, target in wanted)
    assert not overlapping(rectangles(picture(model)))
    results = {node.layer.name for node in model.graph.outputs}
    for box in blocks:  # nothing in the middle of a block is seen from outside
        inside = {part.name for part in box.parts[:-1]}
        assert not inside & results
        assert not inside & {
            every[source].name
            for other in every
            for source in other.sources
            if other.name not in {part.name for part in box.parts}
        }


def test_the_same_graph_gives_the_same_picture(tmp_path):
    branching().plot(tmp_path / "one.svg")
    branching().plot(tmp_path / "two.svg")
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_command(tmp_path):
    path = tmp_path / "vgg16.svg"
    assert main(["plot", "vgg16", "--no-top", "--full", "--output", str(path)]) == 0
    assert drawn_names(ElementTree.parse(path).getroot())[-1] == "block5_pool"
