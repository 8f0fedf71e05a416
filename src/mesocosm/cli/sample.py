"""`mesocosm sample`: samples of a task as JSON lines or Parquet."""

import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from mesocosm.cli.flags import parse
from mesocosm.lab.files import UserError, write
from mesocosm.pieces import pieces
from mesocosm.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class SampleOptions(Settings):
    """What to write."""

    count: int = setting(1000, "samples to write", low=1, high=100_000_000)
    seed: int = setting(0, "seed of the samples", low=0, high=2**62)
    to: str = setting("", "file to write, .jsonl or .parquet; JSON lines go to standard output when not given")
    text: bool = setting(False, "add the tokens of the inputs as strings")


def sample(task: str, settings: list[str]) -> int:
    known = pieces("task")
    if task not in known:
        raise UserError(f"there is no task {task!r}; choose from: {', '.join(known)}")
    kind = known[task].load()
    prog = f"mesocosm sample {task}"
    options, made = parse(prog, known[task].summary, settings, SampleOptions(), kind())
    path = Path(options.to)
    if options.to and path.suffix not in (".jsonl", ".parquet"):
        raise UserError(f"--to {options.to} is not legal: it must end in .jsonl or .parquet")
    if options.text and not made.tokens:
        raise UserError(f"--text is not legal here: the inputs of {task} are not tokens")
    from mesocosm.seeding import generator

    try:
        batch = made.sample(options.count, generator(options.seed, "sample"))
    except (ImportError, ValueError) as error:
        raise UserError(error) from error
    columns = {name: field.tolist() for name, field in zip(batch._fields, batch)}
    if options.text:
        columns["tokens"] = [[made.tokens[token] for token in row] for row in columns["inputs"]]
    if not options.to:
        sys.stdout.write(_jsonl(columns).decode())
        return 0
    write(path, _jsonl(columns) if path.suffix == ".jsonl" else _parquet(columns))
    print(f"{options.count} samples of {made} written to {path}")
    return 0


def _jsonl(columns: dict[str, list]) -> bytes:
    rows = (dict(zip(columns, row)) for row in zip(*columns.values()))
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _parquet(columns: dict[str, list]) -> bytes:
    import pyarrow
    from pyarrow import parquet

    file = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), file)
    return file.getvalue()
