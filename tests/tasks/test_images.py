import gzip
import struct
import sys
import types
from pathlib import Path

import numpy
import pytest
import torch
from scipy import stats
from sklearn.datasets import load_digits

from mesocosm.seeding import generator
from mesocosm.tasks import Images
from mesocosm.tasks.images import disjoint_subsets, noisy_labels

CIFAR10 = Path(__file__).parents[2].parent / "shared" / "data" / "cifar10"
FASHION = Path("/usr/share/datasets/fashion-mnist")
RANDOM = numpy.random.default_rng(0)


@pytest.fixture
def fashion(tmp_path):
    """A folder of IDX files with 30 training and 10 test images."""
    for split, count in (("train", 30), ("t10k", 10)):
        images = RANDOM.integers(0, 256, (count, 28, 28), dtype=numpy.uint8)
        labels = numpy.arange(count, dtype=numpy.uint8) % 10
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = struct.pack(f">BBBB{array.ndim}i", 0, 0, 8, array.ndim, *array.shape)
            (tmp_path / f"{split}-{kind}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes()))
    return tmp_path


def test_digits_are_split_without_loss():
    task = Images()
    train, test = task.train(), task.test()
    assert train._fields == tuple(task.fields)
    assert train.inputs.shape == (1000, *task.input_shape)
    assert test.inputs.shape == (797, *task.input_shape)
    assert task.origin == "digits from scikit-learn: 1000 train, 797 test"
    counts = train.targets.bincount() + test.targets.bincount()
    assert counts.tolist() == numpy.bincount(load_digits().target).tolist()
    assert len(torch.cat((train.inputs, test.inputs)).flatten(1).unique(dim=0)) == len(
        numpy.unique(load_digits().data, axis=0)
    )


def test_pixels_are_standardised_by_the_training_split(fashion):
    task = Images(source="fashion-mnist", folder=str(fashion))
    pixels = task.train().inputs
    assert pixels.mean().abs() < 1e-6
    assert pixels.std(correction=0) == pytest.approx(1)
    assert task.test().inputs.mean().abs() > 1e-4


def test_idx_files_are_read_pixel_by_pixel(fashion):
    content = gzip.decompress((fashion / "t10k-images-idx3-ubyte.gz").read_bytes())
    raw = numpy.array(list(content[16:])).reshape(10, 1, 28, 28)
    read = Images(source="fashion-mnist", folder=str(fashion)).test()
    assert numpy.corrcoef(raw.flatten(), read.inputs.flatten())[0, 1] == pytest.approx(1)
    assert read.targets.tolist() == list(range(10))


def test_size_averages_blocks_of_pixels(fashion):
    full, pooled = (Images(source="fashion-mnist", folder=str(fashion), size=size) for size in (None, 14))
    blocks = full.test().inputs.unfold(2, 2, 2).unfold(3, 2, 2).mean((-2, -1))
    assert pooled.input_shape == (1, 14, 14)
    assert torch.corrcoef(torch.stack((blocks.flatten(), pooled.test().inputs.flatten())))[0, 1] > 1 - 1e-5


def test_samples_are_rows_of_the_training_split_drawn_uniformly():
    task = Images(size=4)
    batch, train = task.sample(20_000, generator(0)), task.train()
    assert torch.equal(batch.inputs[:50], train.inputs[batch.row[:50]])
    assert torch.equal(batch.targets, train.targets[batch.row])
    assert stats.chisquare(batch.row.bincount(minlength=1000)).pvalue > 1e-3
    assert torch.equal(batch.row, task.sample(20_000, generator(0)).row)


def test_label_noise_is_fixed_and_only_in_training():
    task = Images(label_noise=0.4)
    train = task.train()
    assert torch.equal(train.clean, Images().train().targets)
    wrong = int((train.targets != train.clean).sum())
    assert stats.binomtest(wrong, 1000, 0.4 * 0.9).pvalue > 1e-3
    assert torch.equal(task.test().targets, task.test().clean)
    assert torch.equal(train.targets, task.train().targets)


def test_noisy_labels_are_nested_in_the_noise():
    labels = torch.randint(10, (2000,), generator=generator(0))
    little, much = (noisy_labels(labels, noise, 10, generator(1)) for noise in (0.1, 0.5))
    changed = little != labels
    assert torch.equal(little[changed], much[changed])
    assert (much != labels).sum() > 3 * changed.sum()


def test_classes_are_kept_and_numbered_anew():
    whole, two = Images(), Images(classes=(8, 3), label_noise=0.5)
    assert two.output_shape == (2,)
    for kept, split in ((two.train(), whole.train()), (two.test(), whole.test())):
        for new, old in enumerate((8, 3)):
            assert torch.equal(kept.inputs[kept.clean == new], split.inputs[split.targets == old])
            assert torch.equal(kept.row[kept.clean == new], split.row[split.targets == old])
    assert set(two.train().targets.tolist()) == {0, 1}


def test_counts_are_balanced_and_nested():
    few, more = (Images(count=count, label_noise=0.3).train() for count in (50, 200))
    assert few.clean.bincount().tolist() == [5] * 10
    assert more.clean.bincount().tolist() == [20] * 10
    assert set(few.row.tolist()) < set(more.row.tolist())
    assert torch.equal(few.targets, more.targets[torch.isin(more.row, few.row)])


def test_imbalance_is_the_ratio_of_the_first_class_to_the_last():
    counts = Images(imbalance=10).train().clean.bincount()
    assert counts.tolist() == pytest.approx([int(counts[0]) * 10 ** (-c / 9) for c in range(10)], abs=1)
    assert (counts == Images().train().targets.bincount()).any(), "no class is kept whole"
    assert Images(count=88, imbalance=10, classes=(0, 1)).train().clean.bincount().tolist() == [80, 8]


def test_draws_differ_in_split_noise_and_choice():
    first, second = (Images(label_noise=0.3, count=100, draw=draw) for draw in (0, 1))
    assert not torch.equal(first.test().inputs, second.test().inputs)
    assert not torch.equal(first.train().inputs, second.train().inputs)
    assert Images(draw=0).train().inputs.equal(Images().train().inputs)


def test_draws_of_files_keep_the_split(fashion):
    first, second = (
        Images(source="fashion-mnist", folder=str(fashion), count=10, label_noise=1, draw=draw) for draw in (0, 1)
    )
    assert torch.equal(first.test().inputs, second.test().inputs)
    assert first.train().row.tolist() != second.train().row.tolist()


def test_disjoint_subsets_share_nothing():
    subsets = disjoint_subsets(4, 25, 110, generator(0))
    assert subsets.shape == (4, 25)
    assert len(subsets.unique()) == 100
    assert subsets.max() < 110


def test_environment_names_the_folder(fashion, monkeypatch):
    monkeypatch.setenv("MESOCOSM_DATA", str(fashion))
    assert Images(source="fashion-mnist").origin == f"fashion-mnist from {fashion}: 30 train, 10 test"


def test_nothing_found_names_the_places(tmp_path):
    task = Images(source="cifar10", folder=str(tmp_path))
    with pytest.raises(FileNotFoundError, match=rf"{tmp_path}/cifar10, {tmp_path} holds train.parquet and test"):
        task.train()


@pytest.mark.parametrize(
    "content",
    [b"", b"not gzip", gzip.compress(b""), gzip.compress(bytes(40)), gzip.compress(bytes(9000))[:-12]],
    ids=["empty", "not gzip", "no header", "zeros", "cut"],
)
def test_a_damaged_idx_file_is_named(fashion, content):
    path = fashion / "train-images-idx3-ubyte.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path} is damaged|{fashion} is damaged"):
        Images(source="fashion-mnist", folder=str(fashion)).train()


def test_a_damaged_parquet_file_is_named(tmp_path):
    for name in ("train.parquet", "test.parquet"):
        (tmp_path / name).write_bytes(b"PAR1 and nothing else")
    with pytest.raises(ValueError, match=r"train.parquet is damaged"):
        Images(source="cifar10", folder=str(tmp_path)).train()


def test_hub_fetches_through_datasets(monkeypatch):
    pictures = RANDOM.integers(0, 256, (12, 32, 32, 3), dtype=numpy.uint8)
    split = {"img": list(pictures), "label": [0, 9] * 6}
    asked = []
    fake = types.SimpleNamespace(load_dataset=lambda name: asked.append(name) or {"train": split, "test": split})
    monkeypatch.setitem(sys.modules, "datasets", fake)
    task = Images(source="cifar10", folder="hub")
    assert task.train().inputs.shape == (12, 3, 32, 32)
    assert task.train().inputs.is_contiguous(), "vmap can't normalise groups of images that lie channels last"
    assert asked == ["uoft-cs/cifar10"]


def test_a_missing_extra_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'mesocosm\[hub\]'"):
        Images(source="fashion-mnist", folder="hub").train()


@pytest.mark.skipif(not FASHION.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_fashion_mnist_of_debian():
    task = Images(source="fashion-mnist", size=14)
    assert task.train().inputs.shape == (60_000, 1, 14, 14)
    assert task.test().targets[:4].tolist() == [9, 2, 1, 1]


@pytest.mark.skipif(not CIFAR10.is_dir(), reason="the CIFAR-10 files are not beside the repository")
def test_cifar10_pixels_and_labels_are_those_of_the_files(tmp_path):
    import io

    import pyarrow.parquet
    from PIL import Image

    for name in ("train.parquet", "test.parquet"):
        some = pyarrow.parquet.read_table(CIFAR10 / name).slice(0, 200)
        pyarrow.parquet.write_table(some, tmp_path / name)
    classes = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    test = Images(source="cifar10", folder=str(tmp_path)).test()
    assert [classes[c] for c in test.targets] == [name.split("/")[0] for name in some["name"].to_pylist()]

    picture = Image.open(io.BytesIO(some["image"][7].as_py()))
    places = [(x, y) for x in range(0, 32, 5) for y in range(0, 32, 3)]
    for channel in range(3):
        raw = torch.tensor([picture.getpixel(place)[channel] for place in places]).double()
        read = torch.stack([test.inputs[7, channel, y, x] for x, y in places]).double()
        assert torch.corrcoef(torch.stack((raw, read)))[0, 1] == pytest.approx(1)


@pytest.mark.slow
@pytest.mark.skipif(not CIFAR10.is_dir(), reason="the CIFAR-10 files are not beside the repository")
def test_cifar10_whole():
    task = Images(source="cifar10", folder=str(CIFAR10), size=16)
    assert task.origin == f"cifar10 from {CIFAR10}: 50000 train, 10000 test"
    assert task.train().targets.bincount().tolist() == [5000] * 10
    assert task.train().inputs.std(dim=(0, 2, 3), correction=0).tolist() == pytest.approx([1] * 3, abs=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Images(source="mnist"), "source='mnist' is not legal.*one of digits, fashion-mnist, cifar10"),
        (lambda: Images(size=3), "size=3 is not legal.*divide 8"),
        (lambda: Images(label_noise=-0.1), "label_noise=-0.1 is not legal.*from 0 to 1"),
        (lambda: Images(classes=(3, 3)), r"classes=\(3, 3\) is not legal.*two or more different"),
        (lambda: Images(count=990).train(), "count=990 is not legal: it needs 99 images of class"),
        (lambda: disjoint_subsets(3, 4, 11, generator(0)), "count=3 subsets of size=4 are not legal.*pool=11"),
    ],
)
def test_bad_parameters_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
