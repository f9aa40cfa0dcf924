import os

import numpy as np
import pytest
from PIL import Image

from flaxapps import train


@pytest.fixture
def folder(tmp_path):
    for number in range(4):
        Image.new("L", (4, 4), number).save(tmp_path / f"{number}.png")
    return tmp_path


def table(folder, text):
    (folder / "labels.csv").write_text(text, encoding="utf-8")
    return train.image_table(folder / "labels.csv", image_size=4)


@pytest.mark.parametrize(
    "text",
    [
        "0.png,cat\n1.png,dog\n",
        "path,label\n0.png,cat\n1.png,dog\n",
        "\ufeffLabel, Path\ncat, 0.png\n\ndog,1.png",
        'label,weight,path\ncat,3,"0.png"\ndog,4,1.png\n',
    ],
)
def test_header_and_columns(folder, text):
    data = table(folder, text)
    assert data.class_names == ("cat", "dog")
    images, labels = next(data.batches(2, seed=None))
    assert images[:, 0, 0, 0].tolist() == [0, 1]
    assert labels.tolist() == [0, 1]


def test_absolute_paths_and_one_file_many_times(folder):
    data = table(folder, f"{folder}/2.png,a\n3.png,b\n3.png,b\n")
    images, labels = next(data.batches(3, seed=None))
    assert images[:, 0, 0, 0].tolist() == [2, 3, 3]
    assert labels.tolist() == [0, 1, 1]
    assert data.manifest()["file 3.png"].endswith(", 2 times")


def test_numbers_are_sorted_as_numbers(folder):
    assert table(folder, "0.png,10\n1.png,9\n2.png,2\n").class_names == ("2", "9", "10")
    assert table(folder, "0.png,10\n1.png,9\n2.png,x\n").class_names == ("10", "9", "x")


def test_class_names_set_the_order(folder):
    (folder / "labels.csv").write_text("0.png,cat\n1.png,dog\n")
    data = train.image_table(folder / "labels.csv", image_size=4, class_names=["dog", "bird", "cat"])
    assert data.labels.tolist() == [2, 0]


def test_a_split_of_a_table(folder):
    (folder / "labels.csv").write_text("".join(f"{number}.png,{number % 2}\n" for number in range(4)))
    parts = [
        train.image_table(folder / "labels.csv", image_size=4, validation_split=0.25, subset=subset, seed=3)
        for subset in ("training", "validation")
    ]
    assert [len(part) for part in parts] == [3, 1]
    assert sorted(parts[0].files + parts[1].files) == [f"{number}.png" for number in range(4)]
    assert np.concatenate([part.labels for part in parts]).sum() == 2


def test_a_photo_in_several_rows_is_on_one_side_of_a_split(folder):
    """Oversampling: rows of the same photo, one written otherwise, are not seen in training and validation both."""
    rows = [f"{number}.png,{number % 2}\n" for number in range(4)]
    (folder / "labels.csv").write_text("".join([*rows, *rows[::2], "./1.png,1\n", *rows]))
    for seed in range(5):
        sides = [
            {
                os.path.normpath(file)
                for file in train.image_table(
                    folder / "labels.csv", image_size=4, validation_split=0.5, subset=subset, seed=seed
                ).files
            }
            for subset in ("training", "validation")
        ]
        assert [len(side) for side in sides] == [2, 2]
        assert not sides[0] & sides[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lists no photos"),
        ("path,label\n", "lists no photos"),
        ("0.png;cat\n", r"columns, path and label, .* its first line is '0.png;cat'"),
        ("x,y,z\n0.png,cat,1\n", "columns, path and label"),
        ("0.png,cat\n1.png\n2.png,\n", "without a path or a label: line 2; line 3"),
        ("0.png,cat\n9.png,dog\n8.png,dog\n", "line 2: there is no file .*9.png; line 3: there is no file .*8.png"),
        ("0.png,cat\n0.png,dog\n", "line 2: 0.png is 'dog' here, 'cat' in line 1"),
        ("0.png,cat\n1.png,cat\n", "one class only, 'cat'"),
    ],
)
def test_what_is_wrong_is_told_with_its_lines(folder, text, message):
    with pytest.raises(ValueError, match=message):
        table(folder, text)


def test_labels_beyond_the_class_names_are_told(folder):
    (folder / "labels.csv").write_text("0.png,cat\n1.png,dog\n")
    with pytest.raises(ValueError, match="line 2: 'dog' is not among the class_names"):
        train.image_table(folder / "labels.csv", image_size=4, class_names=["cat"])


def test_missing_files_can_be_skipped(folder):
    (folder / "labels.csv").write_text("0.png,cat\n9.png,dog\n")
    data = train.image_table(folder / "labels.csv", image_size=4, on_error="skip")
    with pytest.warns(UserWarning, match="1 image could not be read"):
        ((_, labels),) = data.batches(2, seed=None)
    assert labels.tolist() == [0]
    assert "9.png" in data.skipped


def test_no_csv(folder):
    with pytest.raises(FileNotFoundError, match="none"):
        train.image_table(folder / "none.csv", image_size=4)
    with pytest.raises(ValueError, match="not a CSV file in UTF-8"):
        train.image_table(folder / "0.png", image_size=4)
