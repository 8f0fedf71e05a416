"""Does a state of fixed size keep recurrent models from copying and looking up what attention can?

Source: Jelassi et al. (2024), Repeat After Me: Transformers are Better than State Space Models at Copying, arXiv
2402.01032
"""

import dataclasses
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from mesocosm import lab, measures, models, tasks, training
from mesocosm.settings import setting
from mesocosm.studies.repeat_after_me.claims import CLAIMS
from mesocosm.studies.repeat_after_me.evaluation import COPIER_LENGTH, evaluate, measure_copier, tests, track
from mesocosm.studies.repeat_after_me.figures import figures
from mesocosm.studies.repeat_after_me.rules import LEARNED, THRESHOLD

if TYPE_CHECKING:
    from torch import Tensor

    from mesocosm.lab.lab import Lab
    from mesocosm.tasks.base import Task

POSITIONS = ("hard-alibi", "alibi", "none", "rotary")
KEYS = ("suffix", "prefix")


@dataclass(frozen=True, kw_only=True)
class Config(lab.Config):
    """Settings of the study."""

    seeds: int = setting(4, "seeds of the Hard-ALiBi transformers and of the state space models", low=1, high=10_000)
    other_seeds: int = setting(2, "how many of these seeds LSTMs and other position codes get", low=1, high=10_000)
    letters: int = setting(16, "letters of the alphabet", low=2, high=26)
    min_length: int = setting(4, "letters in the shortest training string", low=1, high=1000)
    short_length: int = setting(7, "letters in the longest string where longer ones are tested", low=1, high=1000)
    lookup_length: int = setting(8, "letters in the longest string where keys are looked up", low=1, high=1000)
    max_length: int = setting(12, "letters in the longest string where examples are counted", low=1, high=1000)
    n: int = setting(1, "letters in the key of a look-up", low=1, high=12)
    answer: int = setting(2, "letters in the answer of a look-up", low=1, high=1000)
    duplicated: tuple[int, ...] = setting((1, 2, 3, 4), "lengths of the n-gram that stands twice", low=1, high=500)
    d_model: int = setting(64, "width of the transformers", low=1, high=4096)
    n_heads: int = setting(8, "attention heads, a divisor of d_model; the first half are masked", low=1, high=64)
    n_layers: int = setting(2, "layers of all models", low=1, high=64)
    d_mlp: int = setting(0, "width of the transformers' MLP layers; 0 for none", low=0, high=16384)
    learning_rate: float = setting(1e-2, "learning rate of the transformers, falling to 0", low=0, high=1)
    ssm_width: int = setting(32, "width of the state space models, a multiple of 8", low=8, high=4096)
    d_state: int = setting(16, "numbers in the state per channel", low=1, high=1024)
    d_states: tuple[int, ...] = setting((1, 4), "further state sizes at which the same model is trained", low=1)
    ssm_learning_rate: float = setting(1e-2, "learning rate of the state space models, falling to 0", low=0, high=1)
    lstm_width: int = setting(64, "width of the LSTMs", low=1, high=4096)
    lstm_learning_rate: float = setting(5e-3, "learning rate of the LSTMs, falling to 0", low=0, high=1)
    steps: int = setting(1000, "steps of attention on the longer strings", low=1, high=10_000_000)
    recurrent_steps: int = setting(1500, "steps of recurrent models on the longer strings", low=1, high=10_000_000)
    short_steps: int = setting(600, "steps of attention on the shorter strings", low=1, high=10_000_000)
    short_recurrent_steps: int = setting(1200, "steps of recurrent models on them", low=1, high=10_000_000)
    suffix_steps: int = setting(200, "steps of attention on look-up, key after the string", low=1, high=10_000_000)
    lookup_steps: int = setting(400, "steps of all other look-up", low=1, high=10_000_000)
    warmup: int = setting(20, "steps over which the learning rate rises", low=0, high=10_000)
    batch_size: int = setting(16, "strings a step when copying", low=1, high=4096)
    lookup_batch_size: int = setting(64, "strings a step when looking up", low=1, high=4096)
    every: int = setting(50, "steps between two evaluations", low=1, high=1_000_000)
    tracked: int = setting(128, "strings of the greatest training length that each of them reads", low=1, high=100_000)
    strings: int = setting(128, "strings of each length that trained models read", low=1, high=1_000_000)

    def check(self) -> None:
        for name in ("short_length", "lookup_length"):
            if not self.min_length <= getattr(self, name) <= self.max_length:
                raise ValueError(
                    f"{name}={getattr(self, name)} is not legal: it must be from min_length={self.min_length} to "
                    f"max_length={self.max_length}"
                )
        if 2 * max(self.duplicated) > self.max_length:
            raise ValueError(
                f"duplicated={self.duplicated} is not legal: each must fit into max_length={self.max_length} twice"
            )
        for name, values in (("duplicated", self.duplicated), ("d_states", (*self.d_states, self.d_state))):
            if len(set(values)) < len(values):
                raise ValueError(f"{name}={getattr(self, name)} is not legal: a value stands twice, or is d_state")
        if self.d_model % self.n_heads or self.d_model // self.n_heads % 2:
            raise ValueError(f"n_heads={self.n_heads} is not legal: d_model={self.d_model} must be an even multiple")
        if self.ssm_width % 8:
            raise ValueError(f"ssm_width={self.ssm_width} is not legal: it must be a multiple of 8")
        if self.warmup > min(itertools.chain(*steps(self).values())):
            raise ValueError(f"warmup={self.warmup} is not legal: it must be at most the steps of each training")
        if self.short_steps > self.short_recurrent_steps:
            raise ValueError(
                f"short_steps={self.short_steps} is not legal: it must be at most "
                f"short_recurrent_steps={self.short_recurrent_steps}"
            )


def steps(config: Config) -> dict[str, tuple[int, int]]:
    """Steps of attention and of recurrent models, by kind of training."""
    return {
        "copy": (config.steps, config.recurrent_steps),
        "short": (config.short_steps, config.short_recurrent_steps),
        "suffix": (config.suffix_steps, config.lookup_steps),
        "prefix": (config.lookup_steps, config.lookup_steps),
    }


PRESETS = {
    "smoke": Config(
        seeds=2,
        other_seeds=1,
        letters=8,
        short_length=6,
        lookup_length=6,
        max_length=8,
        n=2,
        duplicated=(1, 3),
        d_model=16,
        n_heads=4,
        ssm_width=8,
        d_state=4,
        d_states=(1,),
        lstm_width=8,
        steps=20,
        recurrent_steps=20,
        short_steps=20,
        short_recurrent_steps=20,
        suffix_steps=20,
        lookup_steps=20,
        lookup_batch_size=16,
        warmup=5,
        every=10,
        tracked=16,
        strings=16,
    ),
    "small": Config(),
    "paper": Config(
        seeds=3,
        other_seeds=3,
        letters=26,
        min_length=5,
        short_length=50,
        lookup_length=50,
        max_length=300,
        n=3,
        answer=2,
        duplicated=tuple(range(1, 9)),
        d_model=1024,
        n_heads=16,
        n_layers=12,
        d_mlp=4096,
        learning_rate=1e-5,
        ssm_width=1024,
        d_state=32,
        d_states=(4, 16, 64),
        ssm_learning_rate=1e-5,
        lstm_width=640,
        lstm_learning_rate=1e-5,
        steps=20_000,
        recurrent_steps=200_000,
        short_steps=20_000,
        short_recurrent_steps=100_000,
        suffix_steps=20_000,
        lookup_steps=100_000,
        warmup=100,
        every=500,
        strings=384,
    ),
}


def plan(config: Config) -> Iterable[lab.Cell]:
    """Copying of longer strings, copying of shorter ones, and look-up, each by attention and by recurrent models."""
    strings: dict[str, Any] = {"letters": config.letters, "min_length": config.min_length}
    lookup = {**strings, "max_length": config.lookup_length, "n": config.n, "answer": config.answer}
    every, some = range(config.seeds), range(min(config.other_seeds, config.seeds))

    def cell(kind: str, task: "Task", name: str, seeds: range = every, **changes: Any) -> lab.Cell:
        budget = steps(config)[kind][name not in POSITIONS]
        rate, make = makers(config)[name]
        made = lab.Cell(
            name=f"{kind}/{name}",
            task=task,
            steps=budget,
            batch_size=config.lookup_batch_size if kind in KEYS else config.batch_size,
            objective=training.cross_entropy,
            schedule=training.linear(budget, config.warmup),
            clip=1.0,
            seeds=seeds,
            measure=partial(track, config, task),
            every=config.every,
            stop=has_learned,
            swappable=name == "hard-alibi",
            optimiser=training.AdamW(rate, weight_decay=0.1),
            **{"model": make, **changes},
        )
        tests(config, made)  # refuses what could not be tested
        return made

    long = tasks.StringCopy(**strings, max_length=config.max_length)
    copying = partial(cell, "copy", long)
    yield from (copying("hard-alibi"), copying("ssm"), copying("lstm", some))
    short = partial(cell, "short", tasks.StringCopy(**strings, max_length=config.short_length))
    yield short("hard-alibi")
    yield from (short(positions, some) for positions in POSITIONS[1:])
    yield from (short("ssm", settings={"d_state": config.d_state}), short("lstm", some))
    for d_state in config.d_states:
        make = partial(makers(config)["ssm"][1], d_state=d_state)
        resized = short("ssm", model=make, settings={"d_state": d_state})
        # Compared after so many steps, on the same schedule.
        yield dataclasses.replace(resized, name=f"state/{d_state}", steps=config.short_steps)
    for key in KEYS:
        looking = partial(cell, key, tasks.NGramLookup(**lookup, key=key))
        yield from (looking("hard-alibi"), looking("ssm"))


def makers(config: Config) -> dict[str, tuple[float, Any]]:
    """Learning rate and maker of each model."""
    transformer = partial(
        models.Transformer.for_task,
        d_model=config.d_model,
        n_heads=config.n_heads,
        n_layers=config.n_layers,
        d_mlp=config.d_mlp,
    )
    attention = {code: (config.learning_rate, partial(transformer, positions=code)) for code in POSITIONS}
    ssm = partial(models.SelectiveSSM.for_task, d_model=config.ssm_width, n_layers=config.n_layers)
    lstm = partial(models.LSTM.for_task, d_model=config.lstm_width, n_layers=config.n_layers)
    return {
        **attention,
        "ssm": (config.ssm_learning_rate, partial(ssm, d_state=config.d_state)),
        "lstm": (config.lstm_learning_rate, lstm),
    }


def has_learned(measured: "dict[str, Tensor]") -> "Tensor":
    return measured["strings"] >= LEARNED


def run(config: Config, lab: "Lab") -> None:
    import torch

    for cell in plan(config):
        history = lab.train(cell)
        record: Any = partial(lab.record, cell.name, seed=list(cell.seeds), step=cell.steps, **cell.settings)
        when, accuracies = torch.tensor(history.steps), history.metrics["strings"]
        found = measures.examples_to_threshold(when, accuracies, THRESHOLD, cell.batch_size)
        budget = cell.steps * cell.batch_size
        record({"examples": found.examples, "reached": found.reached.double(), "budget": budget})
        found = lab.remember(f"{cell.name}/evaluation", partial(evaluate, config, cell, history.population))
        record({"parameters": found["parameters"], "memory": found["memory"]})
        for i, test in enumerate(tests(config, cell)):
            shares = dict(zip(("string accuracy", "character accuracy"), found["shares"][:, :, i].T))
            record(shares, length=test.max_length, duplicated=getattr(test, "duplicated", 0))
    for kept in range(COPIER_LENGTH + 1):
        lab.record("copier", measure_copier(kept), seed=0, kept=kept)


STUDY = lab.Study(
    title="Repeat after me: attention, recurrence and copying",
    paper="S. Jelassi, D. Brandfonbrener, S. Kakade, E. Malach. Repeat After Me: Transformers are Better than State "
    "Space Models at Copying. ICML 2024. arXiv 2402.01032",
    question="Is a state of fixed size a real handicap against attention where the context must be copied or looked "
    "up exactly, in examples needed and in strings longer than those of training?",
    presets=PRESETS,
    plan=plan,
    run=run,
    claims=CLAIMS,
    figures=figures,
    departures=(
        "The paper's experiments with pretrained models (copying text, phone book) are a study of their own, "
        "repeat-after-me-pretrained.",
        "The small preset has 16 letters in place of 26, strings of up to 12 letters in place of 300 where examples "
        "are counted, and of up to 7 and 8 in place of 50 in the other trainings.",
        "Its transformers are two attention layers of width 64 without MLP: with MLP layers, pilots learned more "
        "slowly and a step took longer. In the paper's preset MLP layers follow attention; GPT-NeoX adds both at once.",
        "The state space model has one decay a head, as Mamba-2, in place of one a channel and state, as Mamba; weight "
        "decay acts on its decays too. The LSTM has no dropout.",
        "A row is one example, padded, in place of several packed into 220 tokens.",
        "Keys of look-up are one letter and answers two, in batches of 64: longer ones were not learned in minutes.",
        "A duplicated n-gram is put into one other place that does not overlap; the authors' code replaces one n-gram "
        "of the string by another wherever it stands.",
    ),
)
