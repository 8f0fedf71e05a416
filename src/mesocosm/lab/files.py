"""Files of a run: written whole or not at all, and refused by name when damaged. Nothing is ever unpickled."""

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas
    from torch import Tensor


class UserError(Exception):
    """What the user asked for can't be done; exit status 2."""


class RunError(Exception):
    """What was asked for is sound, but it failed; exit status 1."""


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


def _digest(*parts: bytes) -> str:
    hashed = hashlib.blake2b(digest_size=16)
    for part in parts:
        hashed.update(part)
    return hashed.hexdigest()


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _damaged(path: Path, why: object) -> RunError:
    remedy = {
        "config.json": "restore the file from a backup, or start a new run",
        "records.parquet": "delete it and `mesocosm resume` the run, which makes it again from its checkpoints",
        "verdicts.json": "delete it and `mesocosm judge` the run, which makes it again from its records",
    }.get(path.name, "delete it and `mesocosm resume` the run, which does that part again")
    return RunError(f"{path} is damaged ({why}); {remedy}")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from error


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON object with a digest of its content."""
    write(path, json.dumps({**value, "digest": _digest(_canonical(value))}, indent=1).encode() + b"\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read what `write_json` wrote.

    Raises:
        RunError: when the file is missing or its content is not what was written.
    """
    try:
        value = json.loads(_read(path))
        digest = value.pop("digest")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, "it is not the JSON that was written") from error
    if digest != _digest(_canonical(value)):
        raise _damaged(path, "its content does not match its digest")
    return value


def write_tensors(path: Path, tensors: "dict[str, Tensor]", facts: dict[str, Any]) -> None:
    """Write tensors and plain JSON facts as one safetensors file with a digest of both."""
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"facts": json.dumps(facts)}
    header, body = _split(save(tensors, metadata))
    write(path, save(tensors, {**metadata, "digest": _digest(_canonical(header), body)}))


def read_tensors(path: Path) -> "tuple[dict[str, Tensor], dict[str, Any]]":
    """Read what `write_tensors` wrote.

    Raises:
        RunError: when the file is missing or its content is not what was written.
    """
    from safetensors.torch import load

    data = _read(path)
    try:
        header, body = _split(data)
        digest = header["__metadata__"].pop("digest")
        whole = digest == _digest(_canonical(header), body)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise _damaged(path, "it is cut short or overwritten") from error
    if not whole:
        raise _damaged(path, "its content does not match its digest")
    # Cloned, because kernels may round otherwise in memory that is not aligned.
    return {name: tensor.clone() for name, tensor in load(data).items()}, json.loads(header["__metadata__"]["facts"])


def _split(data: bytes) -> tuple[dict[str, Any], bytes]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def write_table(path: Path, table: "pandas.DataFrame") -> None:
    """Write a table as Parquet with a digest of its content."""
    import pyarrow
    from pyarrow import parquet

    whole = pyarrow.Table.from_pandas(table, preserve_index=False)
    whole = whole.replace_schema_metadata({**(whole.schema.metadata or {}), b"digest": _table_digest(table).encode()})
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(whole, sink)
    write(path, sink.getvalue().to_pybytes())


def read_table(path: Path) -> "pandas.DataFrame":
    """Read what `write_table` wrote.

    Raises:
        RunError: when the file is missing or its content is not what was written.
    """
    import pyarrow
    from pyarrow import parquet

    data = _read(path)
    try:
        whole = parquet.read_table(pyarrow.BufferReader(data))
        digest = (whole.schema.metadata or {})[b"digest"].decode()
        table = whole.to_pandas()
    except (pyarrow.ArrowException, OSError, ValueError, KeyError) as error:
        raise _damaged(path, "it is not the Parquet file that was written") from error
    if digest != _table_digest(table):
        raise _damaged(path, "its content does not match its digest")
    return table


def _table_digest(table: "pandas.DataFrame") -> str:
    import pandas

    rows = pandas.util.hash_pandas_object(table, index=False).to_numpy()
    return _digest(_canonical(list(table.columns)), rows.tobytes())
