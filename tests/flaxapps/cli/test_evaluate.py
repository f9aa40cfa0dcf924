"""`flaxapps evaluate`, with a model that sees nothing but which colour is strongest."""

import csv
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from flaxapps import Input, Model, layers, save_model
from flaxapps.applications.imagenet_utils import class_names
from flaxapps.cli.commands import main
from flaxapps.cli.evaluate import Tally, write_evaluation
from flaxapps.cli.models import Recipe, write_recipe
from flaxapps.photos.labelled import find_labelled, match_labels
from flaxapps.photos.photo import AS_LOAD_IMG
from tests.processes import run

COLOURS = {"red": (200, 20, 10), "green": (10, 200, 20), "blue": (20, 10, 200)}
WNIDS = {"red": "n01440764", "green": "n03126707", "blue": "n02012849"}  # tench, and both that are called crane


def write_photo(path: Path, colour: str, size: tuple[int, int] = (10, 8)) -> None:
    path.parent.mkdir(exist_ok=True, parents=True)
    Image.new("RGB", size, COLOURS[colour]).save(path)


def write_model(path: Path, outputs: dict[str, int], classes: int, name: str = "colours", size: int = 6) -> None:
    """A model whose output of index `outputs[colour]` is the mean of that colour."""
    image = Input((size, size, 3))
    model = Model(image, layers.Dense(classes, name="mean")(layers.GlobalAveragePooling2D()(image)), name=name)
    kernel = np.zeros((3, classes), np.float32)
    for channel, colour in enumerate(COLOURS):
        kernel[channel, outputs[colour]] = 1
    save_model(model, {"params": {"mean": {"kernel": kernel, "bias": np.zeros(classes, np.float32)}}}, path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of classes with 4 red photos, 3 green ones of which one is blue in truth, and 2 blue ones."""
    place = tmp_path_factory.mktemp("classes")
    for colour, count in {"red": 4, "green": 3, "blue": 2}.items():
        for number in range(count):
            write_photo(place / colour / f"{number}.png", "blue" if (colour, number) == ("green", 2) else colour)
    return place


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "colours.keras"
    write_model(path, {"blue": 0, "green": 1, "red": 2}, 3)
    return path


def write_scorer(path: Path, kernel: list[list[float]], bias: list[float], activation: str | None) -> None:
    """A model whose outputs are linear in the mean colours, then the activation."""
    image = Input((6, 6, 3))
    head = layers.Dense(len(bias), activation=activation, name="mean")
    model = Model(image, head(layers.GlobalAveragePooling2D()(image)), name="scorer")
    arrays = {"kernel": np.array(kernel, np.float32), "bias": np.array(bias, np.float32)}
    save_model(model, {"params": {"mean": arrays}}, path)


@pytest.mark.parametrize("activation", ["sigmoid", None])
def test_one_output_says_yes_or_no(activation, evaluate, tmp_path: Path):
    """Of Keras's yes/no networks, the second class in order is yes."""
    for colour, classes in {"red": "no", "green": "yes", "blue": "yes"}.items():
        write_photo(tmp_path / "photos" / classes / f"{colour}.png", colour)
    write_scorer(tmp_path / "model.keras", [[0], [1], [0]], [-100], activation)  # green
    result = json.loads(evaluate(tmp_path / "photos", "--model", tmp_path / "model.keras")[1])
    assert (result["photos"], result["top1"]) == (3, 2 / 3)
    assert result["classes"][1] == {"name": "yes", "photos": 2, "top1": 1, "top5": 2, "taken_for": "no", "mistakes": 1}
    (tmp_path / "names.txt").write_text("yes\nno\n")
    options = ("--model", tmp_path / "model.keras", "--labels", tmp_path / "names.txt")
    assert json.loads(evaluate(tmp_path / "photos", *options)[1])["top1"] == 1 / 3
    write_photo(tmp_path / "photos" / "perhaps" / "1.png", "red")
    assert "model's 2 outputs is not known for the 3 labels" in evaluate(tmp_path / "photos", *options[:2])[2]


@pytest.mark.parametrize("rows", [["r.png,red;warm", "g.png,green", "b.png,blue|cold"], None], ids=["cells", "rows"])
def test_several_labels_are_counted_each_by_itself(rows, evaluate, tmp_path: Path):
    for colour in COLOURS:
        write_photo(tmp_path / f"{colour[0]}.png", colour)
    rows = rows or ["r.png,red", "r.png,warm", "g.png,green", "b.png,blue", "b.png,cold"]
    (tmp_path / "table.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    kernel = [[0, 0, 0, 1, 1], [0, 0, 1, 0, 1], [1, 0, 0, 0, 0]]  # blue, cold (never), green, red, warm (green too)
    write_scorer(tmp_path / "model.keras", kernel, [-100] * 5, "sigmoid")
    result = json.loads(evaluate(tmp_path / "table.csv", "--model", tmp_path / "model.keras")[1])
    true = np.array([[0, 0, 0, 1, 1], [0, 0, 1, 0, 0], [1, 1, 0, 0, 0]])
    predicted = np.array([[0, 0, 0, 1, 1], [0, 0, 1, 0, 1], [1, 0, 0, 0, 0]])
    wanted = precision_recall_fscore_support(true, predicted, zero_division=np.nan)
    for name, values in zip(("precision", "recall", "f1", "photos"), wanted, strict=True):
        found = [np.nan if label[name] is None else label[name] for label in result["labels"]]
        np.testing.assert_allclose(found, values)
    assert result["all_labels_right"] == accuracy_score(true, predicted) == 1 / 3
    table = evaluate(tmp_path / "table.csv", "--model", tmp_path / "model.keras", form="table")[1]
    assert "all labels right: 33.3% (1 of 3); mean F1 73.3%" in table
    assert evaluate(tmp_path / "table.csv", "--model", tmp_path / "model.keras", form="csv")[1].count("\n") == 6
    write_scorer(tmp_path / "model.keras", kernel, [-100] * 5, "tanh")
    assert "should be those of a sigmoid" in evaluate(tmp_path / "table.csv", "--model", tmp_path / "model.keras")[2]


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "imagenet.keras"
    order = [wnid for wnid, _ in class_names()]
    write_model(path, {colour: order.index(wnid) for colour, wnid in WNIDS.items()}, 1000)
    return path


@pytest.fixture
def evaluate(capsys: pytest.CaptureFixture[str]):
    def evaluate(*arguments: object, form: str = "json") -> tuple[int, str, str]:
        code = main(["evaluate", *map(str, arguments), "--preprocess", "none", "--format", form])
        return code, *capsys.readouterr()

    return evaluate


def test_json(evaluate, folder: Path, colours: Path):
    code, out, _ = evaluate(folder, "--model", colours, "--batch-size", 2)
    assert code == 0
    result = json.loads(out)
    assert (result["photos"], result["top1"], result["top5"]) == (9, 8 / 9, 1)
    assert result["classes"] == [
        {"name": "blue", "photos": 2, "top1": 2, "top5": 2, "taken_for": None, "mistakes": 0},
        {"name": "green", "photos": 3, "top1": 2, "top5": 3, "taken_for": "blue", "mistakes": 1},
        {"name": "red", "photos": 4, "top1": 4, "top5": 4, "taken_for": None, "mistakes": 0},
    ]


def test_table_has_the_worst_class_first(evaluate, folder: Path, colours: Path):
    _, out, _ = evaluate(folder, "--model", colours, form="table")
    lines = [line.split() for line in out.splitlines() if line.strip()]
    assert lines[2] == ["green", "3", "66.7%", "blue", "(1)"]
    assert out.endswith("\ntop-1 88.9% (8 of 9)\n")
    assert "top-5" not in out  # always 100%


def test_the_table_has_the_top_five_of_more_than_five_classes():
    stream = io.StringIO()
    tally = Tally(6)
    tally.add(np.eye(6)[[0, 1, 1]] + np.arange(6) / 10, [0, 1, 0])
    write_evaluation(stream, "table", tally, list("abcdef"))
    lines = [line.split() for line in stream.getvalue().splitlines() if line.strip()]
    assert lines[0] == ["class", "photos", "top-1", "top-5", "most", "often", "taken", "for"]
    assert lines[2] == ["a", "2", "50.0%", "50.0%", "b", "(1)"]
    assert stream.getvalue().endswith("top-1 66.7% (2 of 3)\ntop-5 66.7% (2 of 3)\n")


def test_csv_to_a_file(evaluate, folder: Path, colours: Path, tmp_path: Path):
    evaluate(folder, "--model", colours, "--output", tmp_path / "by_class.csv", form="csv")
    with (tmp_path / "by_class.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["top1"] for row in rows] == ["2", "2", "4"]


def test_a_table_of_paths(evaluate, folder: Path, colours: Path, tmp_path: Path):
    table = tmp_path / "table.csv"
    table.write_text(f"label,path\nred,{folder}/red/0.png\nblue,{folder}/green/0.png\ngreen,{folder}/green/1.png\n")
    result = json.loads(evaluate(table, "--model", colours)[1])
    assert (result["photos"], result["top1"]) == (3, 2 / 3)
    table.write_text(f"{folder}/red/0.png,red\n{folder}/green/0.png,green\n{folder}/blue/1.png,blue\n")
    assert json.loads(evaluate(table, "--model", colours)[1])["top1"] == 1


def test_labels_give_the_order_of_the_outputs(evaluate, folder: Path, tmp_path: Path):
    write_model(tmp_path / "model.keras", {"red": 0, "green": 1, "blue": 3}, 4)
    assert "give the names of the outputs" in evaluate(folder, "--model", tmp_path / "model.keras")[2]
    (tmp_path / "names.txt").write_text("red\ngreen\nviolet\nblue\n")
    options = ("--model", tmp_path / "model.keras", "--labels", tmp_path / "names.txt")
    assert json.loads(evaluate(folder, *options)[1])["top1"] == 8 / 9
    (tmp_path / "names.txt").write_text("red\ngrün\nviolet\nblue\n")
    assert "1 labels are not classes of the model: green. Its classes are red, grün" in evaluate(folder, *options)[2]


def test_a_folder_of_finetune_brings_its_classes(evaluate, folder: Path, tmp_path: Path, capsys):
    write_model(tmp_path / "model.keras", {"red": 0, "green": 1, "blue": 2}, 3)
    assert "not the output of a finished" in evaluate(folder, "--model", tmp_path)[2]
    write_recipe(tmp_path, Recipe("model.keras", ["red", "green", "blue"], "none", AS_LOAD_IMG))
    assert main(["evaluate", str(folder), "--model", str(tmp_path), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["top1"] == 8 / 9
    assert main(["predict", str(folder / "red"), "--model", str(tmp_path), "--top", "1", "--format", "csv"]) == 0
    assert capsys.readouterr().out.count(",red,") == 4
    assert main(["summary", str(tmp_path)]) == 0
    assert "(None, 3)" in capsys.readouterr().out


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as ILSVRC2012_img_val.tar: red, green, blue, blue."""
    place = tmp_path_factory.mktemp("flat") / "val"
    for number, colour in enumerate(("red", "green", "blue", "blue"), start=1):
        write_photo(place / f"ILSVRC2012_val_{number:08}.JPEG", colour)
    return place


def test_imagenet_folders_are_matched_by_wnid(evaluate, imagenet: Path, tmp_path: Path):
    for colour, wnid in WNIDS.items():
        write_photo(tmp_path / wnid / "photo.png", colour)
    result = json.loads(evaluate(tmp_path, "--model", imagenet)[1])
    assert (result["photos"], result["top1"]) == (3, 1)
    assert [each["name"] for each in result["classes"]] == ["n01440764 tench", "n02012849 crane", "n03126707 crane"]


def write_meta(path: Path, numbers: dict[str, int]) -> None:
    from scipy.io import savemat

    rows = [(number, wnid) for wnid, number in numbers.items()] + [(1001, "n00001740")]  # above the classes
    synsets = np.array(rows, dtype=[("ILSVRC2012_ID", "O"), ("WNID", "O")]).reshape(-1, 1)
    savemat(path, {"synsets": synsets})


def test_truth_of_the_development_kit(evaluate, imagenet: Path, flat: Path, tmp_path: Path):
    truth = tmp_path / "ILSVRC2012_validation_ground_truth.txt"
    truth.write_text("490\n7\n3\n7\n")
    options = (flat, "--model", imagenet, "--truth", truth)
    assert "need its meta.mat" in evaluate(*options)[2]
    write_meta(tmp_path / "meta.mat", {WNIDS["red"]: 490, WNIDS["green"]: 7, WNIDS["blue"]: 3})
    assert json.loads(evaluate(*options)[1])["top1"] == 3 / 4


@pytest.mark.parametrize("form", ["wnids", "caffe", "kaggle", "csv"])
def test_truth_of_others(form: str, evaluate, imagenet: Path, flat: Path, tmp_path: Path):
    wnids = [WNIDS[colour] for colour in ("red", "green", "blue", "red")]
    names = [path.name for path in sorted(flat.iterdir())]
    order = [wnid for wnid, _ in class_names()]
    pairs = list(zip(names, wnids, strict=True))[::-1]  # where there are names, the order does not matter
    text = {
        "wnids": "\n".join(wnids),
        "caffe": "\n".join(f"{name} {order.index(wnid)}" for name, wnid in pairs),
        "kaggle": "ImageId,PredictionString\n" + "\n".join(f"{Path(a).stem},{b} 1 2 3 4 {b} 5 6 7 8" for a, b in pairs),
        "csv": "wnid,file\n" + "\n".join(f"{wnid},{name}" for name, wnid in pairs),
    }[form]
    truth = tmp_path / ("truth.csv" if form in ("kaggle", "csv") else "truth.txt")
    truth.write_text(text + "\n")
    assert json.loads(evaluate(flat, "--model", imagenet, "--truth", truth)[1])["top1"] == 3 / 4


def test_truth_that_does_not_fit(flat: Path, tmp_path: Path):
    truth = tmp_path / "truth.txt"
    truth.write_text("red\ngreen\n")
    with pytest.raises(ValueError, match="2 lines for 4 photos"):
        find_labelled(flat, truth)
    truth.write_text("ILSVRC2012_val_00000001.JPEG red\n")
    with pytest.raises(ValueError, match="has no labels of 3 of 4 photos: ILSVRC2012_val_00000002"):
        find_labelled(flat, truth)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", "lists no photos"),
        ("name,label,split\n", "its first line is 'name,label,split'"),
        ("path,label\n", "lists no photos"),
        ("path,label\na.png\nb.png,x\nc.png,\n", "without a path or a label: line 2; line 4"),
    ],
)
def test_tables_that_are_none(table: str, message: str, tmp_path: Path):
    (tmp_path / "table.csv").write_text(table)
    with pytest.raises(ValueError, match=message):
        find_labelled(tmp_path / "table.csv")


def test_places_without_labelled_photos(flat: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="no folders of classes; give the labels of single"):
        find_labelled(flat)
    with pytest.raises(FileNotFoundError):
        find_labelled(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no images in the folders"):
        find_labelled(tmp_path)


def test_numbers_as_labels():
    assert match_labels(["2", "0", "1"], None, 3)[0] == [2, 0, 1]
    with pytest.raises(ValueError, match="give the names of the outputs"):
        match_labels([str(number) for number in range(11)], None, 11)


def test_resize_and_crop(evaluate, colours: Path, tmp_path: Path):
    """A red square in the middle of a wide blue photo: all of what is cut out, little of the whole."""
    photo = Image.new("RGB", (60, 20), COLOURS["blue"])
    photo.paste(COLOURS["red"], (20, 0, 40, 20))
    for colour in COLOURS:
        (tmp_path / colour).mkdir()
    photo.save(tmp_path / "red" / "square.png")
    (tmp_path / "names.txt").write_text("blue\ngreen\nred\n")
    options = (tmp_path, "--model", colours, "--labels", tmp_path / "names.txt")
    assert json.loads(evaluate(*options)[1])["top1"] == 0
    assert json.loads(evaluate(*options, "--resize", 6)[1])["top1"] == 1
    assert "--resize 5 is too small for a crop of 6 x 6: give at least 6" in evaluate(*options, "--resize", 5)[2]
    assert "give --resize too" in evaluate(*options, "--crop", 6)[2]
    assert "takes photos of 6 x 6, got 7 x 7" in evaluate(*options, "--resize", 9, "--crop", 7)[2]


def test_broken_photos_are_told_and_left_out(evaluate, colours: Path, tmp_path: Path):
    for colour in COLOURS:
        write_photo(tmp_path / colour / "photo.png", colour)
    (tmp_path / "red" / "broken.png").write_bytes(b"not a photo")
    code, out, err = evaluate(tmp_path, "--model", colours)
    assert code == 1
    assert json.loads(out)["photos"] == 3
    assert "broken.png" in err
    assert "1 of 4 photos could not be read" in err


def test_ties_and_nan_are_counted_as_keras_does():
    tally = Tally(7)
    scores = np.zeros((3, 7))  # equal scores: no five are above any
    scores[1, 1:6] = 1  # five are above the first
    scores[2] = np.nan
    tally.add(scores, [6, 0, 0])
    assert tally.top5.tolist() == [1, 0, 0, 0, 0, 0, 1]


def test_two_processes_count_what_one_does(evaluate, folder: Path, colours: Path, tmp_path: Path):
    """Each has a part of the photos, one of which cannot be read; the first alone prints.

    Gloo, which connects processes on CPUs, prints lines of its own.
    """
    place = tmp_path / "classes"
    shutil.copytree(folder, place)
    (place / "blue" / "broken.png").write_text("not a photo")
    options = [place, "--model", colours, "--batch-size", "2"]
    code, alone, _ = evaluate(*options)
    command = ["-m", "flaxapps", "evaluate", *options, "--preprocess", "none", "--format", "json"]
    printed = [re.sub(r"\[Gloo\].*\n", "", text) for text in run(command, 2, devices=1, code=1)]
    assert (printed, code) == ([alone, ""], 1)
