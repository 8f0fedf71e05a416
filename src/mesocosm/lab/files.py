"""Files of a run: written whole or not at all, and refused by name when damaged. Nothing is ever unpickled."""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas
    from torch import Tensor


class UserError(Exception):
    """What the user asked for can't be done; exit status 2."""


class RunError(Exception):
    """What was asked for is sound, but it failed; exit status 1."""


def file_name(words: str, kept: str = "=.-_") -> str:
    """A name with `_` for all but letters, digits and the signs `kept`."""
    return "".join(c if c.isalnum() or c in kept else "_" for c in words)


def write(path: Path, data: bytes) -> None:
    """Replace `path` atomically: temporary file, fsync, rename.

    Raises:
        RunError: when it can't be written (disk full, say); the earlier file is then still whole.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RunError(f"cannot write {path}: {error.strerror}; everything written before is whole") from error


SEAL = b"mesocosm:"
BLANK = SEAL + 32 * b"0"


def _seal(data: bytes) -> bytes:
    """Put the digest of all bytes of a file into the blank that the file holds for it."""
    return data.replace(BLANK, SEAL + _digest(data), 1)


def _unseal(path: Path, data: bytes) -> bytes:
    found = re.search(SEAL + b"([0-9a-f]{32})", data)
    if not found:
        raise _damaged(path, "it is cut short or overwritten")
    if _digest(data[: found.start()] + BLANK + data[found.end() :]) != found[1]:
        raise _damaged(path, "its content does not match its digest")
    return data


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).hexdigest().encode()


def _damaged(path: Path, why: str) -> RunError:
    remedy = {
        "config.json": "restore the file from a backup, or start a new run",
        "verdicts.json": "delete it and `mesocosm judge` the run, which makes it again from its records",
    }.get(path.name, "delete it and `mesocosm resume` the run, which makes it again")
    return RunError(f"{path} is damaged ({why}); {remedy}")


def _read(path: Path) -> bytes:
    try:
        return _unseal(path, path.read_bytes())
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from error


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON object, sealed by a digest."""
    write(path, _seal(json.dumps({**value, "digest": BLANK.decode()}, indent=1).encode()))


def read_json(path: Path) -> dict[str, Any]:
    """Read what `write_json` wrote.

    Raises:
        RunError: when the file is missing or not what was written.
    """
    value = json.loads(_read(path))
    del value["digest"]
    return value


def write_tensors(path: Path, tensors: "dict[str, Tensor]", facts: dict[str, Any]) -> None:
    """Write tensors and plain JSON facts as one safetensors file, sealed by a digest."""
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write(path, _seal(save(tensors, {"facts": json.dumps(facts), "digest": BLANK.decode()})))


def read_tensors(path: Path) -> "tuple[dict[str, Tensor], dict[str, Any]]":
    """Read what `write_tensors` wrote.

    Raises:
        RunError: when the file is missing or not what was written.
    """
    from safetensors.torch import load

    data = _read(path)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    # Cloned, because kernels may round otherwise in memory that is not aligned.
    return {name: tensor.clone() for name, tensor in load(data).items()}, json.loads(header["__metadata__"]["facts"])


def write_table(path: Path, table: "pandas.DataFrame") -> None:
    """Write a table as Parquet, sealed by a digest."""
    import pyarrow
    from pyarrow import parquet

    whole = pyarrow.Table.from_pandas(table, preserve_index=False)
    whole = whole.replace_schema_metadata({**(whole.schema.metadata or {}), b"digest": BLANK})
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(whole, sink)
    write(path, _seal(sink.getvalue().to_pybytes()))


def read_table(path: Path) -> "pandas.DataFrame":
    """Read what `write_table` wrote.

    Raises:
        RunError: when the file is missing or not what was written.
    """
    import pyarrow
    from pyarrow import parquet

    return parquet.read_table(pyarrow.BufferReader(_read(path))).to_pandas()
