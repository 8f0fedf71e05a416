"""What a study is made of: its configuration, its trainings, its claims and its figures."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mesocosm.lab.claims import Claim
from mesocosm.settings import Settings, setting

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure
    from torch import Tensor, nn

    from mesocosm.lab.lab import Lab
    from mesocosm.tasks.base import Task
    from mesocosm.training.averaging import EMA
    from mesocosm.training.growing import Growth
    from mesocosm.training.loop import Measure, Optimiser
    from mesocosm.training.population import Population


PARAMETERS, TOKENS_READ, TOKENS_WRITTEN = 135e6, 400, 40
"""Of a language model, and tokens a second with it on a common core, for estimates."""


@dataclass(frozen=True, kw_only=True)
class Config(Settings):
    """Base of all study configurations."""

    seeds: int = setting(8, "seeds to run: 0, 1, ..., N - 1", low=1, high=100_000)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One training of a population: what `train` takes, with the names under which its records are kept."""

    name: str
    """Unique in the study; claims select cells by prefix."""
    task: "Task"
    model: "Callable[[Task], nn.Module]"
    seeds: Sequence[int]
    """The study's seed of each replica: the records' `seed`."""
    objective: "Callable[..., Tensor]"
    optimiser: "Optimiser"
    steps: int
    batch_size: int
    init: Sequence[int | str] | None = None
    """Key of each replica's initial weights; its seed where not given."""
    start: "Callable[[Population], Any] | None" = None
    """Changes the initial weights of the population in place, as `training.inherit` does."""
    stream: Any = None
    """Batches; fresh samples of the task, keyed by seed, where not given."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Varied settings: columns of the records, one value for all replicas or a list of one each."""
    measure: "Measure | None" = None
    every: int | None = None
    stop: "Callable[[dict[str, Tensor]], Tensor] | None" = None
    schedule: Callable[[int], float] | None = None
    clip: float | None = None
    accumulate: int = 1
    """Parts in which a batch is read, one after the other, where it is too large for memory."""
    grow: "Sequence[Growth]" = ()
    """Changes of the architecture on the way; not for swappable cells."""
    average: "EMA | None" = None
    complete: bool = True
    """Whether the study trains it just as planned; False where `run` puts a teacher, a start or a measure in."""
    swappable: bool = True
    """Whether `--model` replaces this cell's architecture."""


@dataclass(frozen=True)
class Drawing:
    """A figure with its caption, which is also its text alternative."""

    name: str
    figure: "Figure"
    caption: str


@dataclass(frozen=True, kw_only=True)
class Study:
    """One paper."""

    title: str
    paper: str
    """Authors, title, venue, arXiv id."""
    question: str
    presets: Mapping[str, Config]
    plan: Callable[[Any], Iterable[Cell]]
    """All trainings of a configuration, so that a run can be priced before it starts."""
    claims: Sequence[Claim]
    figures: "Callable[[pandas.DataFrame], Iterable[Drawing]]"
    run: "Callable[[Any, Lab], None] | None" = None
    """Trains and measures; trains all cells of the plan where not given."""
    check: Callable[[Any], None] | None = None
    """Raises ImportError, OSError or ValueError where something that a run needs is missing: an extra, a file, a model;
    called before a run is priced or gets its folder."""
    estimate: Callable[[Any], Mapping[str, float]] | None = None
    """Seconds, by name, of what a run does besides training, by rule of thumb: for a price before it starts."""
    departures: Sequence[str] = ()
    """Where the study departs from the paper, a sentence each."""
