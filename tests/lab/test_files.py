"""What is written is read back equal; what is damaged is refused by name."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from mesocosm.lab import files

TABLE = pd.DataFrame(
    {"cell": ["a", "b", "c"], "seed": [0, 1, 2], "value": [0.1, np.nan, -3.0], "mode": ["x", None, "y"]}
)
TENSORS = {
    "theta": torch.randn(3, 40),
    "steps": torch.arange(5),
    "flags": torch.tensor([True, False]),
    "none": torch.empty(0),
}
FACTS = {"step": 7, "rows": [1, 2], "name": "µ"}

KINDS = {
    "config.json": (lambda path: files.write_json(path, {"a": [1, 2.5], "b": {"c": None}}), files.read_json),
    "records.parquet": (lambda path: files.write_table(path, TABLE), files.read_table),
    "cell.safetensors": (lambda path: files.write_tensors(path, TENSORS, FACTS), files.read_tensors),
}


@pytest.fixture(params=KINDS)
def written(request, tmp_path: Path):
    path = tmp_path / request.param
    write, read = KINDS[request.param]
    write(path)
    return path, read


def test_json_is_read_back_equal(tmp_path: Path) -> None:
    files.write_json(tmp_path / "x.json", {"a": [1, 2.5], "b": None})
    assert files.read_json(tmp_path / "x.json") == {"a": [1, 2.5], "b": None}


def test_a_table_is_read_back_equal_and_other_tools_can_read_it(tmp_path: Path) -> None:
    files.write_table(tmp_path / "x.parquet", TABLE)
    pd.testing.assert_frame_equal(files.read_table(tmp_path / "x.parquet"), TABLE)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "x.parquet"), TABLE)


def test_tensors_are_read_back_equal_and_other_tools_can_read_them(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    files.write_tensors(tmp_path / "x.safetensors", TENSORS, FACTS)
    tensors, facts = files.read_tensors(tmp_path / "x.safetensors")
    assert facts == FACTS
    for copy in (tensors, load_file(tmp_path / "x.safetensors")):
        assert copy.keys() == TENSORS.keys()
        assert all(torch.equal(copy[n], t) and copy[n].dtype == t.dtype for n, t in TENSORS.items())


def refused(path: Path, read) -> None:
    before = path.read_bytes()
    with pytest.raises(files.RunError, match=path.name):
        read(path)
    assert path.read_bytes() == before


def test_a_cut_file_is_refused(written) -> None:
    path, read = written
    whole = path.read_bytes()
    for length in {0, 1, 7, 8, 9, len(whole) // 3, len(whole) // 2, len(whole) - 1}:
        path.write_bytes(whole[:length])
        refused(path, read)


def test_a_flipped_bit_is_refused(written) -> None:
    path, read = written
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    for at in random.choice(len(whole), size=min(len(whole), 300), replace=False):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << random.integers(8)]) + whole[at + 1 :])
        refused(path, read)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for name, (_, read) in KINDS.items():
        with pytest.raises(files.RunError, match=name):
            read(tmp_path / name)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "config.json"
    files.write_json(path, {"a": 1})

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(files.RunError, match="No space left on device"):
        files.write_json(path, {"a": 2})
    assert files.read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["config.json"]


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    import pickle

    class Bomb:
        def __reduce__(self):
            return (exec, ("raise SystemExit('unpickled')",))

    for name, (_, read) in KINDS.items():
        (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
        refused(tmp_path / name, read)


def test_an_edited_config_is_refused(tmp_path: Path) -> None:
    files.write_json(tmp_path / "config.json", {"seeds": 3})
    text = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**text, "seeds": 4}))
    refused(tmp_path / "config.json", files.read_json)
