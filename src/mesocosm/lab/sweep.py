"""Grids of runs: a run folder for each point, cells of one shape trained together, and tables over all points."""

import dataclasses
import hashlib
import itertools
import json
import sys
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mesocosm.lab import folder as folders
from mesocosm.lab import jobs
from mesocosm.lab.files import UserError, file_name, read_json, read_table, write, write_table
from mesocosm.lab.study import Cell

if TYPE_CHECKING:
    from pandas import DataFrame

    from mesocosm.lab.lab import Lab


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A run for every combination of some settings' values."""

    base: folders.Request
    varied: Mapping[str, tuple]
    """Values by setting."""

    def points(self) -> dict[str, folders.Request]:
        """The runs by name, `n=8,steps=200` say; the last setting varies fastest.

        Raises:
            UserError: for a combination that the study does not allow.
        """
        found = {}
        for values in itertools.product(*self.varied.values()):
            point = dict(zip(self.varied, values))
            name = ",".join(f"{field}={told(value)}" for field, value in point.items())
            try:
                config = dataclasses.replace(self.base.config, **point)
            except ValueError as error:
                raise UserError(f"the point {name} is not legal: {error}") from error
            found[slug(name)] = dataclasses.replace(self.base, config=config)
        return found

    def identity(self) -> str:
        """Hash of all that can change a record of any point."""
        facts = [request.identity() for request in self.points().values()]
        return hashlib.blake2b(json.dumps(facts).encode(), digest_size=4).hexdigest()


def told(value: Any) -> str:
    """A value as `--vary` reads it: `0.1`, `16+32` of a tuple, `true`."""
    if isinstance(value, tuple):
        return "+".join(map(told, value))
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


def slug(name: str) -> str:
    """A name of points as that of a file."""
    return file_name(name, kept="=.-_+,")


def create(sweep: Sweep, out: Path | None) -> Path:
    """Make a sweep's folder, or find the unfinished one that goes on.

    Raises:
        UserError: when `out` holds something else.
    """
    facts = {"format": folders.FORMAT, "study": sweep.base.study, "preset": sweep.base.preset}
    facts |= {"model": sweep.base.model, "precision": sweep.base.precision}
    facts |= {"config": dataclasses.asdict(sweep.base.config), "varied": dict(sweep.varied)}
    facts |= {"points": list(sweep.points()), "identity": sweep.identity(), "command": ["mesocosm", *sys.argv[1:]]}
    return folders.find_or_make(Path("sweeps") / sweep.base.study, out, "sweep", facts)


def read(folder: Path) -> Sweep:
    """The sweep that a folder was made for.

    Raises:
        RunError: when its configuration is damaged, or no longer one of the study.
    """
    facts = read_json(folder / "sweep.json")
    varied = {name: folders.tuples(values) for name, values in facts["varied"].items()}
    return Sweep(folders.request_of(facts, folder), varied)


def place(folder: Path, point: str) -> Path:
    """The run folder of a point."""
    return folder / "points" / point


def twins(sweep: Sweep, folder: Path, lab: "Lab") -> list[dict[jobs.Part, Cell]]:
    """The cells that can be trained ahead, done or not; together those of several points that give one checkpoint."""
    from mesocosm.lab import joining

    found: dict[str, list[dict[jobs.Part, Cell]]] = defaultdict(list)
    for name, request in sweep.points().items():
        for part, cell in jobs.ahead(request, place(folder, name)).items():
            known = found[cell.name]
            mine = next((parts for parts in known if joining.same(lab, next(iter(parts.values())), cell)), None)
            if mine is None:
                known.append(mine := {})
            mine[part] = cell
    return [parts for known in found.values() for parts in known]


def share(twins: Iterable[Collection[jobs.Part]]) -> None:
    """Give the finished checkpoint of one cell to all its twins."""
    for parts in twins:
        done = [part for part in parts if part.done] if len(parts) > 1 else []
        for part in parts:
            if done and part not in done:
                write(part.path, done[0].path.read_bytes())


def groups(twins: Iterable[Mapping[jobs.Part, Cell]], lab: "Lab") -> list[dict[jobs.Part, Cell]]:
    """What is still to be trained ahead, a cell of each set of twins, with those that it can be trained with."""
    from mesocosm.lab import joining

    found = [next(iter(parts.items())) for parts in twins if not any(part.done for part in parts)]
    return [dict(found[i] for i in group) for group in joining.groups(lab, [cell for _, cell in found])]


def gather(sweep: Sweep, folder: Path) -> tuple["DataFrame", "DataFrame"]:
    """Records and verdicts of all finished points, with a column for each varied setting; written to the folder."""
    import pandas

    records, verdicts = [], []
    for name, request in sweep.points().items():
        run = place(folder, name)
        if not folders.finished(run):
            continue
        values = {field: getattr(request.config, field) for field in sweep.varied}
        values = {field: told(v) if isinstance(v, tuple) else v for field, v in values.items()}
        table = read_table(run / "records.parquet")
        # A study's records may have a column of that name, of another meaning.
        free = {f"{field} (varied)" if field in table else field: v for field, v in values.items()}
        records.append(table.assign(point=name, **free)[["point", *free, *table]])
        for claim in read_json(run / "verdicts.json")["claims"]:
            low, high = claim["interval"]
            control = claim["control"]["verdict"] if claim["control"] else None
            bound = claim["checks"][0]["bound"] if claim["checks"] else ""
            found = {"effect": claim["effect"], "low": low, "high": high, "unit": claim["unit"]}
            found |= {"bound": bound, "control": control}
            seeds = {"seeds": request.config.seeds} if "seeds" not in values else {}
            verdicts.append(
                {"point": name, **values, "claim": claim["id"], "verdict": claim["verdict"], **found, **seeds}
            )
    if not records:
        return pandas.DataFrame(), pandas.DataFrame()
    whole, judged = pandas.concat(records, ignore_index=True), pandas.DataFrame(verdicts)
    write_table(folder / "records.parquet", whole)
    write(folder / "verdicts.csv", judged.to_csv(index=False).encode())
    return whole, judged
