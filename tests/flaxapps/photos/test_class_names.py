import pytest

from flaxapps import train
from flaxapps.photos.class_names import read_labels

NAMES = ("Zebra", "café, large", "two\nlines")


def test_names_are_kept_in_a_models_folder_or_beside_its_file(tmp_path):
    for model in (tmp_path, tmp_path / "best.keras"):
        assert train.load_class_names(model) is None
        path = train.save_class_names(model, NAMES)
        assert path.parent == tmp_path
        assert train.load_class_names(model) == NAMES
        assert tuple(read_labels(path)) == NAMES  # what `flaxapps predict --labels` reads
    assert len(list(tmp_path.iterdir())) == 2


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "class_names.json").write_text("[1, 2]")
    with pytest.raises(ValueError, match="list of names"):
        train.load_class_names(tmp_path)
