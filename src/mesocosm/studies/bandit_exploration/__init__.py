"""Does a language model explore a bandit that it knows from its prompt alone, or does it lock on an arm early?

Source: Krishnamurthy, Harris, Foster, Zhang & Slivkins (2024), Can large language models explore in-context?, NeurIPS,
arXiv 2403.15371
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby, product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from mesocosm import lab, models, tasks
from mesocosm.lab.study import TOKENS_READ, TOKENS_WRITTEN
from mesocosm.settings import setting
from mesocosm.studies.bandit_exploration.claims import CLAIMS
from mesocosm.studies.bandit_exploration.figures import figures
from mesocosm.studies.bandit_exploration.prompts import MOST_ARMS, Design, design_of, fingerprint

if TYPE_CHECKING:
    from torch import Tensor

    from mesocosm.lab.lab import Lab
    from mesocosm.studies.bandit_exploration.evaluation import Games

READ = ("BNRN0", "ASSN0")
"""Designs through which scripted agents play."""
AGENT, PROMPT = 3e-6, 1.5e-6
"""Seconds of an agent's round, and of one that reads a prompt for each round before it."""


@dataclass(frozen=True, kw_only=True)
class Config(lab.Config):
    """Settings of the study."""

    seeds: int = setting(10, "games of a language model in each design; best a multiple of arms", low=1, high=10_000)
    games: int = setting(1000, "games of each simulated agent", low=2, high=1_000_000)
    read: int = setting(300, "games of each agent that reads prompts", low=2, high=100_000)
    arms: int = setting(5, "arms of the hard instance", low=2, high=MOST_ARMS)
    gap: float = setting(0.2, "difference of the best arm's mean reward and the others'", low=0, high=1)
    horizon: int = setting(100, "rounds of simulated games", low=4, high=100_000)
    longer: int = setting(500, "rounds of longer simulated games", low=4, high=100_000)
    rounds: int = setting(20, "rounds of a language model's games", low=4, high=999)
    designs: tuple[str, ...] = setting(
        ("BNRN0", "BNRN1", "BNRN0c", "BNSN0", "BNSN1", "BNSN0c", "ASRN1", "ASSN1"),
        "prompt designs, five letters each, such as BNRN0",
    )
    again: str = setting("BNRN1", "the one of these that is played a second time, in other games")
    language_model: str | None = setting(
        "smollm2-135m",
        "who plays: the packaged smollm2-135m, a folder, a .gguf file, a name on the hub, or that of an endpoint's "
        "model; None for no language model",
    )
    endpoint: str | None = setting(
        None, "OpenAI-compatible server that has the model, such as http://localhost:8000/v1"
    )
    key_variable: str | None = setting(
        "OPENAI_API_KEY", "environment variable with the endpoint's key; None for no key"
    )
    transcript: str | None = setting(None, "file of the endpoint's answers so far; none takes one in the run folder")
    request_limit: int = setting(10_000, "requests to the endpoint, at most", low=0, high=1_000_000_000)
    spend_limit: float | None = setting(None, "money for the endpoint, in the currency of the prices", low=0)
    input_price: float | None = setting(None, "price of a million tokens read", low=0)
    output_price: float | None = setting(None, "price of a million tokens written", low=0)

    def check(self) -> None:
        designs = [design_of(code) for code in self.designs]
        if len(set(designs)) < len(designs):
            raise ValueError(f"designs={self.designs} is not legal: they must differ")
        if self.again not in self.designs:
            raise ValueError(f"again={self.again!r} is not legal: it must be one of designs={self.designs}")
        if self.endpoint is not None and self.language_model is None:
            raise ValueError("language_model=None is not legal with an endpoint: it must name a model there")
        if self.endpoint is not None and any(design.calibrated for design in designs):
            raise ValueError(
                f"designs={self.designs} is not legal with an endpoint, which gives no scores: none may end in c"
            )


PRESETS = {
    "smoke": Config(
        seeds=2, games=50, read=20, horizon=20, longer=40, rounds=4, designs=("BNRN0", "BNRN1"), again="BNRN1"
    ),
    "small": Config(),
    "paper": Config(
        seeds=20, read=1000, rounds=100,
        designs=(*map("".join, product("BA", "NS", "RS", "NC", "01D")), "BSSR0"),
    ),
}  # fmt: skip


def plan(config: Config) -> Iterator[lab.Cell]:
    """Nothing is trained."""
    yield from ()


def check(config: Config) -> None:
    """Whoever is to play must be there."""
    if config.endpoint is not None:
        with TemporaryDirectory() as folder, player(config, Path(folder)):
            pass
    elif config.language_model is not None:
        models.check_pretrained(config.language_model)


def estimate(config: Config) -> dict[str, float]:
    """Seconds by rule of thumb, of one common core or of an endpoint's answers one after another."""
    horizons = 2 * config.horizon + config.longer + config.rounds
    seconds = {"agents": AGENT * len(players(1)) * config.games * horizons}
    seconds["agents through prompts"] = PROMPT * len(agents()) * len(READ) * config.read * config.rounds**2
    for design in [design_of(code) for code in config.designs] if config.language_model is not None else ():
        rounds = config.rounds * (2 if design.code == config.again else 1)
        seen = 5 * config.rounds / 2 if design.history == "R" else 9 * config.arms
        read = rounds * (90 + config.seeds * (35 + seen)) / TOKENS_READ
        written = (
            0 if design.scored else config.seeds * rounds * (8 if design.reasoning == "N" else 200) / TOKENS_WRITTEN
        )
        asked = float(config.seeds * rounds)
        seconds[design.code] = read + written if config.endpoint is None else asked
    return seconds


def run(config: Config, lab: "Lab") -> None:
    simulated(config, lab)
    through_prompts(config, lab)
    by_language_model(config, lab)


@contextmanager
def player(config: Config, folder: Path, device: str = "cpu") -> Iterator[Any]:
    """The language model, of this machine or of an endpoint; None for none."""
    if config.endpoint is not None:
        limits = {name: getattr(config, name) for name in ("spend_limit", "input_price", "output_price")}
        with models.Endpoint(
            config.endpoint,
            config.language_model,
            transcript=config.transcript or folder / "transcript.jsonl",
            key_variable=config.key_variable,
            request_limit=config.request_limit,
            **limits,
        ) as endpoint:
            yield endpoint
    elif config.language_model is not None:
        from mesocosm.studies.bandit_exploration.evaluation import local_model

        model = local_model(config.language_model)
        model.module.to(device)
        yield model
    else:
        yield None


def agents() -> dict[str, Any]:
    return {
        "UCB": models.UCB(),
        "Thompson": models.ThompsonSampling(),
        "Greedy": models.EpsilonGreedy(),
        "uniform": models.UniformPlay(),
    }


def players(horizon: int) -> dict[str, Any]:
    return agents() | {
        "textbook UCB": models.UCB(bonus=2 * math.log(horizon)),
        "epsilon-greedy": models.EpsilonGreedy(epsilon=0.1),
        "Thompson again": models.ThompsonSampling(),
    }


def hard(config: Config, rounds: int) -> Any:
    return tasks.BernoulliBandit(arms=config.arms, gap=config.gap, horizon=rounds)


def simulated(config: Config, lab: "Lab") -> None:
    """Agents that are told numbers: on the hard instance, for longer, on the easy one, and for as long as the model."""
    from mesocosm.studies.bandit_exploration.evaluation import deal

    kinds = {
        "simulated/hard": hard(config, config.horizon),
        "simulated/long": hard(config, config.longer),
        "simulated/easy": tasks.BernoulliBandit(arms=4, gap=0.5, horizon=config.horizon),
        "reference": hard(config, config.rounds),
    }
    for kind, task in kinds.items():
        games = deal(task, range(config.games))
        for name, agent in players(task.horizon).items():
            simulate(lab, f"{kind}/{name}", agent, games)


def simulate(lab: "Lab", cell: str, agent: Any, games: "Games") -> None:
    from mesocosm.studies.bandit_exploration.evaluation import judged, play_numbers

    record(lab, cell, games, lab.remember(cell, lambda: judged(play_numbers(agent, games, cell), games)))


def through_prompts(config: Config, lab: "Lab") -> None:
    """The same agents, who read the prompts of a game and answer in words."""
    from mesocosm.studies.bandit_exploration.evaluation import Scripted, deal

    games = deal(hard(config, config.rounds), range(config.read))
    for name, agent in agents().items():
        for code in READ:
            ask(lab, f"text/{name}/", Scripted(agent), [design_of(code)], games)


def by_language_model(config: Config, lab: "Lab") -> None:
    """All designs in the same games, and one again in others."""
    from mesocosm.studies.bandit_exploration.evaluation import deal

    prefix = "local/" if config.endpoint is None else "endpoint/"
    task, designs = hard(config, config.rounds), [design_of(code) for code in config.designs]
    with TemporaryDirectory() as temporary, player(config, lab.folder or Path(temporary), lab.device) as model:
        if model is not None:
            games, others = (deal(task, range(n * config.seeds, (n + 1) * config.seeds)) for n in (0, 1))
            for group in groups(designs, local=config.endpoint is None):
                ask(lab, prefix, model, group, games)
            ask(lab, f"again/{prefix}", model, [design_of(config.again)], others)


def groups(designs: Sequence[Design], local: bool) -> list[list[Design]]:
    """Designs that play in lockstep: where a local model is scored, those with the same prompts, else each alone."""

    def together(design: Design) -> str:
        return design.code[:3] if local and design.scored else design.code

    return [list(group) for _, group in groupby(sorted(designs, key=together), key=together)]


def ask(lab: "Lab", prefix: str, model: Any, designs: Sequence[Design], games: "Games") -> None:
    """Let a player that reads prompts play games in designs that go together."""
    from mesocosm.studies.bandit_exploration.evaluation import judged, names_chosen, play_scored, play_texts

    def play() -> "dict[str, Tensor]":
        local = hasattr(model, "score") and designs[0].scored
        found = play_scored(model, designs, games) if local else [play_texts(model, designs[0], games)]
        measured = [judged(one, games) | names_chosen(one, games, d.scenario) for d, one in zip(designs, found)]
        return {f"{d.code}: {name}": v for d, one in zip(designs, measured) for name, v in one.items()}

    found = lab.remember(prefix + " ".join(design.code for design in designs), play)
    for design in designs:
        mine = {name.split(": ")[1]: v for name, v in found.items() if name.startswith(f"{design.code}: ")}
        record(lab, prefix + design.code, games, mine)
        lab.record(prefix + design.code, {"fingerprint of the prompts": fingerprint(design)}, seed=games.seeds[0])


def record(lab: "Lab", cell: str, games: "Games", found: "dict[str, Tensor]") -> None:
    """Curves at the rounds that are shown, and what is measured at the end."""
    from mesocosm.studies.bandit_exploration.evaluation import shown

    rounds = shown(games.batch.inputs.shape[2])
    for name, values in found.items():
        steps = rounds if values.dim() == 2 else rounds[-1:]
        seeds = [seed for seed in games.seeds for _ in steps]
        lab.record(cell, {name: values.flatten()}, seed=seeds, step=steps * len(games.seeds))


STUDY = lab.Study(
    title="Exploring a bandit in context",
    paper="A. Krishnamurthy, K. Harris, D. Foster, C. Zhang, A. Slivkins. Can large language models explore "
    "in-context? NeurIPS 2024. arXiv 2403.15371",
    question="Does a language model explore a bandit that it knows from its prompt alone, or does it lock on an arm "
    "early, and which choices in the prompt matter?",
    presets=PRESETS,
    plan=plan,
    run=run,
    check=check,
    estimate=estimate,
    claims=CLAIMS,
    figures=figures,
    departures=(
        "The model is SmolLM2 with 135 million parameters instead of GPT-3.5, GPT-4 and Llama-2-13B, with 10 games of "
        "20 rounds; any model behind an OpenAI-compatible endpoint can take its place.",
        "A local model chooses by its scores of the options' names, so no answer is invalid.",
        "The wording of the prompts is this study's own.",
        "A design fails where its interval is beyond the upper ends of both UCB's and Thompson sampling's: at T = 20 "
        "each of them is the higher in one of the two statistics.",
        "In each five games in a row the best arm has every place and every name once.",
        "Intervals of SuffFailFreq are Wilson's, of everything else bootstrap.",
        "The design that succeeds with GPT-4, BSSC with a tilde, is written BSSR here, R for reminded.",
    ),
)
