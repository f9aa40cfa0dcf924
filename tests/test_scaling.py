"""The tables of SCALING.md are what their program says, and its commands are there."""

import re
import shlex

import pytest

from docs import scaling
from flaxapps import model_info
from flaxapps.cli import commands as cli
from flaxapps.registry import build_model

PAGE = scaling.PAGE.read_text()
COMPUTED = PAGE.partition(scaling.BEGIN)[2].partition(scaling.END)[0]


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip().strip("|").split("|")]


def numbers(row: str) -> list[float]:
    return [float(cell.split()[0].replace(",", "")) for cell in cells(row)[2:]]


def rows_of(name: str) -> list[str]:
    return [line for line in COMPUTED.splitlines() if line.startswith(f"| {model_info(name).function} |")]


def test_the_page_says_what_the_program_says():
    """For VGG16, apart from the last column, for which a step would have to be compiled."""
    computed = [row for pair in zip(*scaling.cost_rows("vgg16", memory=False), strict=True) for row in pair]
    written = rows_of("vgg16")
    assert [cells(row)[:2] for row in written] == [cells(row)[:2] for row in computed]
    for own, ours in zip(written, computed, strict=True):
        assert numbers(own)[:5] == pytest.approx(numbers(ours)[:5], rel=0.02)
    assert cells(written[0]) == cells(computed[0])


@pytest.mark.parametrize("name", scaling.NETWORKS)
def test_operations_are_those_of_the_layers(name):
    """Two for every weight and place of a kernel; XLA leaves out those that meet only padding."""
    macs = 0
    for layer in build_model(name).layers:
        places = 1
        for size in layer.output_shape[1:-1] if layer.class_name != "Dense" else ():
            places *= size
        for leaf, weight in layer.weights.items():
            if leaf.endswith("kernel"):
                size = 1
                for length in weight.shape:
                    size *= length
                macs += places * size
    inference, training = (numbers(row)[0] for row in rows_of(name)[:2])
    wanted = 2 * macs * scaling.BATCH / 1e9
    assert 0.9 * wanted < inference < 1.1 * wanted
    assert 2.8 < training / inference < 3.2  # backward there are two products for each


def test_times_are_the_larger_of_two():
    for name in scaling.NETWORKS:
        costs, times = rows_of(name)[:2], rows_of(name)[2:]
        for cost, time in zip(costs, times, strict=True):
            flops, moved = numbers(cost)[:2]
            for chip, cell in zip(scaling.CHIPS, cells(time)[2:], strict=True):
                computing, moving = flops / chip.teraflops, moved / chip.bandwidth * 1e3
                assert float(cell.split()[0]) == pytest.approx(max(computing, moving), rel=0.02)
                assert abs(computing / moving - 1) < 0.02 or cell[-1] == ("c" if computing > moving else "m")


def commands() -> list[list[str]]:
    """What follows `flaxapps` in the page's shell code, the comments left out."""
    code = "\n".join(re.findall(r"^```sh\n(.*?)^```", PAGE, re.M | re.S)).replace("\\\n", " ")
    found = re.findall(r"\bflaxapps ((?:[a-z]+) [^\n&'#]*)", code)
    return [shlex.split(text) for text in found]


def test_commands_of_the_page_are_there(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert {words[0] for words in commands()} == {"evaluate", "finetune", "predict"}
    for words in commands():
        given = [{"$SLURM_PROCID": "1", "$SLURM_NTASKS": "4"}.get(word, word) for word in words]
        assert cli.new_flaxapps_parser().parse_args(given).command == words[0]
