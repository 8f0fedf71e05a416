"""Do pretrained transformers copy text and look up a phone book better than pretrained state space models?

Source: Jelassi, Brandfonbrener, Kakade & Malach (2024), Repeat After Me: Transformers are Better than State Space
Models at Copying, ICML, section 4, arXiv 2402.01032
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from mesocosm import lab, models, tasks
from mesocosm.lab.study import TOKENS_READ, TOKENS_WRITTEN
from mesocosm.settings import setting
from mesocosm.studies.repeat_after_me_pretrained.claims import CLAIMS
from mesocosm.studies.repeat_after_me_pretrained.figures import figures
from mesocosm.studies.repeat_after_me_pretrained.rules import ATTENTION, STATE_SPACE

if TYPE_CHECKING:
    from mesocosm.lab.lab import Lab


@dataclass(frozen=True, kw_only=True)
class Config(lab.Config):
    """Settings of the study; a model is the packaged smollm2-135m, a folder, a .gguf file or a name on the hub."""

    seeds: int = setting(24, "questions for each size of the book and each length of text", low=2, high=10_000)
    attention: tuple[str, ...] = setting(("smollm2-135m",), "transformers")
    state_space: tuple[str, ...] | None = setting(
        None, "state space models, the i-th to compare with the i-th of these"
    )
    books: tuple[int, ...] = setting((5, 10, 20, 40), "entries in the phone book", low=3, high=1000)
    digits: int = setting(10, "digits in a number", low=1, high=100)
    text: str | None = setting(None, "file whose passages are copied; none reads the help pages that come with Python")
    lengths: tuple[int, ...] = setting((10, 20, 40), "tokens in a passage", low=2, high=4096)

    def check(self) -> None:
        if self.state_space and len(self.state_space) != len(self.attention):
            legal = f"it must name as many models as attention={self.attention}"
            raise ValueError(f"state_space={self.state_space} is not legal: {legal}")
        for name in ("books", "lengths"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ValueError(f"{name}={getattr(self, name)} is not legal: its values must differ")


PYTHIA = tuple(f"EleutherAI/pythia-{size}" for size in ("410m", "1.4b", "2.8b"))
MAMBA = tuple(f"state-spaces/mamba-{size}-hf" for size in ("370m", "1.4b", "2.8b"))
PRESETS = {
    "smoke": Config(seeds=2, books=(3, 5), lengths=(4,), digits=3),
    "small": Config(),
    "paper": Config(
        seeds=96,
        attention=PYTHIA,
        state_space=MAMBA,
        books=(10, 20, 30, 40, 50, 60, 70, 80, 90, 100),
        lengths=(25, 50, 100, 200, 300),
    ),
}


def plan(config: Config) -> Iterator[lab.Cell]:
    """Nothing is trained."""
    yield from ()


def check(config: Config) -> None:
    """The text must be there and long enough, and so must the models."""
    from mesocosm.studies.repeat_after_me_pretrained import evaluation

    evaluation.source(config.text, max(config.lengths)).whole()
    for name in (*config.attention, *(config.state_space or ())):
        models.check_pretrained(name)


def estimate(config: Config) -> dict[str, float]:
    """Seconds a model takes by rule of thumb, if it is one of 135 million parameters on one common core."""
    read = sum(2 * 16 * (entries + 3) for entries in config.books) + sum(6 * length for length in config.lengths)
    written = sum(2 * (config.digits + 1) for _ in config.books) + sum(2 * length for length in config.lengths)
    seconds = config.seeds * (read / TOKENS_READ + written / TOKENS_WRITTEN)
    return dict.fromkeys((*config.attention, *(config.state_space or ())), seconds)


def run(config: Config, lab: "Lab") -> None:
    from mesocosm.studies.repeat_after_me_pretrained import evaluation

    everyone = dict.fromkeys(config.attention, ATTENTION) | dict.fromkeys(config.state_space or (), STATE_SPACE)
    questions = range(config.seeds)
    for name, kind in everyone.items():
        settings: Any = {"model": name, "kind": kind}
        for entries in config.books:
            book = tasks.PhoneBook(entries=entries, digits=config.digits)
            ask = partial(evaluation.look_up, name, book, config.seeds)
            found = lab.remember(f"phone book/{name}/{entries}", ask)
            lab.record("phone book", found, seed=questions, entries=entries, **settings)
        for length in config.lengths:
            copy = partial(evaluation.copy, name, config.text, length, config.seeds)
            found = lab.remember(f"text/{name}/{length}", copy)
            lab.record("text", found, seed=questions, length=length, **settings)


STUDY = lab.Study(
    title="Repeat after me: pretrained models",
    paper="S. Jelassi, D. Brandfonbrener, S. Kakade, E. Malach. Repeat After Me: Transformers are Better than State "
    "Space Models at Copying. ICML 2024. arXiv 2402.01032",
    question="Do pretrained transformers copy text and look up a phone book better than pretrained state space models "
    "of like size, which predict text as well or better?",
    presets=PRESETS,
    plan=plan,
    run=run,
    check=check,
    estimate=estimate,
    claims=CLAIMS,
    figures=figures,
    departures=(
        "The small preset has one transformer of 135 million parameters and no state space model: it shows how look-up "
        "and copying depend on length, and leaves the comparison to models that you name, or to the paper preset.",
        "Passages come from Python's help pages or a file of yours, in place of C4.",
        "Question answering on SQuAD is left out.",
    ),
)
