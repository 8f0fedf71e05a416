import io
from pathlib import Path

import numpy
import pandas
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from mesocosm.models import MLP
from mesocosm.seeding import generator
from mesocosm.tasks import OwnExamples

RANDOM = numpy.random.default_rng(0)


def written(table: dict | pandas.DataFrame, path: Path) -> str:
    frame = pandas.DataFrame(table)
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, sep="\t" if path.suffix == ".tsv" else ",", index=False)
    return str(path)


def saved(picture: numpy.ndarray | Image.Image, path: Path, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(path, **options)


def encoded(picture: numpy.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "png")
    return file.getvalue()


def noise(*shape: int) -> numpy.ndarray:
    return RANDOM.integers(0, 256, shape, dtype=numpy.uint8)


def test_a_table_is_standardised_and_texts_become_numbers(tmp_path: Path) -> None:
    numbers = RANDOM.normal(3, 2, 8)
    table = {
        "x": numbers,
        "colour": list("rgrgrbrb"),
        "label": [10, 9, 10, 9, 10, 9, -1, -1],
        "one": 1,
        "flag": [True, False] * 4,
    }
    for name in ("t.csv", "t.tsv", "t.parquet"):
        examples = OwnExamples(data=written(table, tmp_path / name))
        batch = examples.all()
        assert examples.classes == ["-1", "9", "10"]
        assert batch.targets.tolist() == [2, 1, 2, 1, 2, 1, 0, 0]
        assert examples.names == [str(row) for row in range(8)]
        one_hot = [[c == k for c in table["colour"]] for k in "bgr"]
        columns = [(numbers - numbers.mean()) / numbers.std(), *one_hot, 0 * numbers, [1, -1] * 4]
        expected = numpy.stack(columns, axis=1)
        torch.testing.assert_close(batch.inputs, torch.tensor(expected, dtype=torch.float32))
        assert batch.weights.tolist() == [1.0] * 8 and batch.row.tolist() == list(range(8))
        assert examples.picture(0) is None


def test_another_column_may_hold_the_label(tmp_path: Path) -> None:
    examples = OwnExamples(data=written({"kind": ["b", "a"] * 2, "x": [0.0, 2] * 2}, tmp_path / "t.csv"), label="kind")
    assert examples.classes == ["a", "b"]
    assert examples.all().inputs.flatten().tolist() == [-1, 1, -1, 1]


def test_whole_numbers_with_a_point_are_labels_without(tmp_path: Path) -> None:
    assert OwnExamples(data=written({"label": [1.0, 2.0] * 2, "x": 0}, tmp_path / "t.csv")).classes == ["1", "2"]


def test_a_folder_of_pictures_keeps_every_pixel(tmp_path: Path) -> None:
    images = [image.astype(numpy.uint8) for image in load_digits().images[:40]]
    for i, image in enumerate(images):
        saved(image, tmp_path / str(i % 2) / ("sub" if i % 4 else ".") / f"{i:02}.png")
    (tmp_path / "0" / ".DS_Store").write_text("x")
    (tmp_path / "0" / "notes.txt").write_text("x")
    (tmp_path / ".cache").mkdir()
    examples = OwnExamples(data=str(tmp_path))
    batch = examples.all()
    assert batch.inputs.shape == (40, 1, 8, 8)
    place = [int(Path(name).stem) for name in examples.names]
    assert sorted(place) == list(range(40))
    assert batch.targets.tolist() == [i % 2 for i in place]
    raw = torch.tensor(numpy.stack([images[i] for i in place])[:, None]).float()
    torch.testing.assert_close(batch.inputs, (raw - raw.mean()) / raw.std(correction=0))
    assert (numpy.asarray(examples.picture(3)) == images[place[3]]).all()
    assert examples.origin.endswith("1 x 8 x 8 pixels each")


def test_pictures_are_resized_by_averaging_to_the_smallest_or_the_side_asked_for(tmp_path: Path) -> None:
    small, large = noise(8, 12, 3), noise(16, 16, 3)
    for i in range(2):
        saved(small, tmp_path / "a" / f"{i}.png")
        saved(large, tmp_path / "b" / f"{i}.png")
    inputs = OwnExamples(data=str(tmp_path)).all().inputs
    assert inputs.shape == (4, 3, 8, 8)
    blocks = large.reshape(8, 2, 8, 2, 3).mean((1, 3)).transpose(2, 0, 1)
    for channel in range(3):  # Averages are rounded to whole grey values.
        assert numpy.corrcoef(inputs[2, channel].flatten(), blocks[channel].flatten())[0, 1] > 0.9999
    assert OwnExamples(data=str(tmp_path), side=4).input_shape == (3, 4, 4)
    saved(noise(90, 90), tmp_path / "c" / "0.png")
    saved(noise(90, 90), tmp_path / "c" / "1.png")
    assert OwnExamples(data=str(tmp_path), side=40).input_shape == (3, 40, 40)
    for folder in "ab":
        for i in range(2):
            (tmp_path / folder / f"{i}.png").unlink()
            saved(noise(50, 90), tmp_path / folder / f"{i}.png")
    assert OwnExamples(data=str(tmp_path)).input_shape == (1, 32, 32)


def test_pictures_are_turned_and_put_on_white(tmp_path: Path) -> None:
    upright = numpy.zeros((8, 8), numpy.uint8)
    upright[:4] = 255
    lying = Image.fromarray(numpy.rot90(upright).copy())
    exif = Image.Exif()
    exif[274] = 6  # to be turned by a quarter, clockwise
    saved(lying, tmp_path / "a" / "turned.png", exif=exif)
    saved(upright, tmp_path / "a" / "upright.png")
    clear = numpy.zeros((8, 8, 4), numpy.uint8)
    clear[4:, :, 3] = 255  # black below, and above a black that is not seen
    saved(clear, tmp_path / "b" / "clear.png")
    saved(upright, tmp_path / "b" / "upright.png")
    inputs = OwnExamples(data=str(tmp_path)).all().inputs
    for i in range(4):
        torch.testing.assert_close(inputs[i], inputs[1])


@pytest.mark.parametrize("hub", [False, True])
def test_a_table_of_pictures_is_the_folder_of_them(hub: bool, tmp_path: Path) -> None:
    pictures = [noise(8, 8, 3) for _ in range(6)]
    labels = ["a", "a", "a", "b", "b", "b"]
    for i, (label, picture) in enumerate(zip(labels, pictures)):
        saved(picture, tmp_path / "folder" / label / f"{i}.png")
    column = [{"bytes": encoded(p), "path": None} if hub else encoded(p) for p in pictures]
    table = OwnExamples(data=written({"img": column, "label": labels, "name": "x"}, tmp_path / "t.parquet"))
    folder = OwnExamples(data=str(tmp_path / "folder"))
    assert torch.equal(table.all().inputs, folder.all().inputs)
    assert torch.equal(table.all().targets, folder.all().targets)
    assert table.names == ["0", "1", "2", "3", "4", "5"]
    assert (numpy.asarray(table.picture(4)) == pictures[4]).all()


def test_examples_are_a_task_like_others(tmp_path: Path) -> None:
    examples = OwnExamples(data=written({"x": range(6), "label": [0, 1] * 3}, tmp_path / "t.csv"))
    batch = examples.sample(50, generator(0))
    assert set(examples.fields) == set(batch._fields)
    assert torch.equal(batch.inputs, examples.all().inputs[batch.row])
    assert torch.equal(batch.targets, examples.all().targets[batch.row])
    assert MLP.for_task(examples)(batch.inputs).shape == (50, 2)


GOOD = {"x": [1.0, 2, 3, 4], "label": ["a", "b", "a", "b"]}


@pytest.mark.parametrize(
    ("change", "label", "message"),
    [
        ({}, "kind", "label=kind .* x, label"),
        ({"x": [1, None, None, 4]}, "label", "'x' .* row 1 and 1 more"),
        ({"x": [1, 2, numpy.inf, 4]}, "label", "'x' is infinite in row 2"),
        ({"label": ["a", None, "a", "b"]}, "label", "'label' has no value in row 1"),
        ({"label": "a"}, "label", "1 class: .* at least 2"),
        ({"label": ["a", "a", "b", "c"]}, "label", "'b' .* no second example .*1 other"),
        ({"x": [str(i) for i in range(4)], "label": "only"}, "label", "1 class"),
    ],
)
def test_a_bad_table_is_refused_by_column_and_row(change: dict, label: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        OwnExamples(data=written(GOOD | change, tmp_path / "t.parquet"), label=label).all()


def test_a_column_of_many_texts_is_refused(tmp_path: Path) -> None:
    table = {"id": [f"n{i}" for i in range(42)], "label": ["a", "b"] * 21}
    with pytest.raises(ValueError, match="'id' holds 42 different texts, more than 20"):
        OwnExamples(data=written(table, tmp_path / "t.csv")).all()


def test_a_column_of_lists_is_refused(tmp_path: Path) -> None:
    table = pandas.DataFrame({"lists": [[1], [2], [3], [4]], "label": GOOD["label"]})
    with pytest.raises(ValueError, match="'lists' holds values of kind"):
        OwnExamples(data=written(table, tmp_path / "t.parquet")).all()


def test_what_is_no_table_or_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "head.csv").write_text("x,label\n")
    (tmp_path / "lone.csv").write_text("label\na\nb\na\nb\n")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "words.txt").write_text("x")
    (tmp_path / "folder").mkdir()
    for name, message in {
        "nowhere.csv": "there is no such file or folder",
        "empty.csv": "cannot be read as a table",
        "head.csv": "holds no rows",
        "lone.csv": "no column but 'label'",
        "torn.parquet": "cannot be read as a table",
        "words.txt": "ends in .csv, .tsv, .parquet",
        "folder": "a folder of pictures",
    }.items():
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            OwnExamples(data=str(tmp_path / name)).all()
    with pytest.raises(ValueError, match="data=None is not legal"):
        OwnExamples().all()


def test_a_bad_picture_is_named(tmp_path: Path) -> None:
    for label in "ab":
        for i in range(2):
            saved(noise(8, 8), tmp_path / label / f"{i}.png")
    bad = tmp_path / "a" / "2.png"
    bad.write_bytes((tmp_path / "a" / "0.png").read_bytes()[:60])
    with pytest.raises(ValueError, match=r"a/2\.png cannot be read as a picture"):
        OwnExamples(data=str(tmp_path)).all()
    bad.write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"a/2\.png cannot be read as a picture"):
        OwnExamples(data=str(tmp_path)).all()
    saved(noise(8, 8).astype(numpy.uint16), bad)
    with pytest.raises(ValueError, match=r"a/2\.png has pixels of kind I;16"):
        OwnExamples(data=str(tmp_path)).all()
    table = {"image": [encoded(noise(8, 8)), b"torn"] * 2, "label": GOOD["label"]}
    with pytest.raises(ValueError, match="row 1, counted from 0, cannot be read"):
        OwnExamples(data=written(table, tmp_path / "t.parquet")).all()
