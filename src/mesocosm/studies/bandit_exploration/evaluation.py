"""Games of agents, of scripted players who read prompts, and of language models."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mesocosm import measures, models
from mesocosm.models.bandit_agents import best_of
from mesocosm.seeding import generator, key
from mesocosm.studies.bandit_exploration.prompts import (
    NAMES,
    Design,
    instructions,
    read_choice,
    read_distribution,
    read_situation,
    situation,
)
from mesocosm.studies.bandit_exploration.rules import middle
from mesocosm.tasks.bandits import BanditBatch, BernoulliBandit, History

TRIES = 4
"""How often a model is asked at temperature 1 until its answer can be read: once, and three times more."""
ANSWER, REASONED = 24, 400
"""Tokens an answer may have, without and with reasoning."""
TIE = 4
"""Digits of a score in nats that count; the rest is rounding."""


class Games(NamedTuple):
    """Games that are the same for every player: tapes, and which name stands for which arm."""

    seeds: list[int]
    batch: BanditBatch
    names: list[list[int]]
    """For each game, by arm, the number of its name."""


def deal(task: BernoulliBandit, seeds: Sequence[int]) -> Games:
    """One game a seed. In each K games in a row every place and every name is the best arm's once."""
    k = task.arms
    batches, names = [], []
    for seed in seeds:
        block, best = divmod(seed, k)
        batches.append(task.tapes(torch.tensor([best]), generator(seed, "tapes")))
        name = torch.randperm(k, generator=generator(block, "name of the best"))[best].item()
        others = [n for n in torch.randperm(k, generator=generator(seed, "names")).tolist() if n != name]
        names.append([*others[:best], int(name), *others[best:]])
    return Games(list(seeds), BanditBatch(*map(torch.cat, zip(*batches))), names)


def noise(seeds: Sequence[int], rounds: int, k: int, player: str) -> Tensor:
    """`[N, T, K + 1]` uniform numbers of a player, a stream of its own for each seed."""
    shape = (rounds, k + 1)
    streams = [generator(seed, "noise", player) for seed in seeds]
    return torch.stack([torch.rand(shape, dtype=torch.float64, generator=stream) for stream in streams])


def play_numbers(agent: Callable[..., Tensor], games: Games, player: str) -> dict[str, Tensor]:
    """Games of an agent that is told numbers."""
    _, k, rounds = games.batch.inputs.shape
    return measures.play_bandit(agent, games.batch.inputs, noise(games.seeds, rounds, k, player))._asdict()


@cache
def local_model(name: str) -> Any:
    """A pretrained model, loaded once in a process."""
    return models.load_pretrained(name)


class Scripted:
    """A player that answers prompts in words, by what it reads there and an agent's rule."""

    def __init__(self, agent: Callable[..., Tensor]) -> None:
        self.agent = agent

    def complete(
        self, conversations: Sequence[Any], max_tokens: int, *, seeds: Sequence[int], **options: Any
    ) -> list[str]:
        names, pulls, wins = zip(*(read_situation(messages[-1]["content"]) for messages in conversations))
        shape, unseen = len(pulls[0]) + 1, torch.zeros(len(pulls), 0)
        streams = [torch.rand(shape, dtype=torch.float64, generator=generator(seed)) for seed in seeds]
        history = History(unseen.long(), unseen, torch.tensor(pulls), torch.tensor(wins).float())
        arms = self.agent(history, torch.stack(streams)).tolist()
        return [f"<Answer>{of[arm]}:1</Answer>" for of, arm in zip(names, arms)]


def play_texts(player: Any, design: Design, games: Games) -> dict[str, Tensor]:
    """Games of a player that writes answers: a `LanguageModel`, an `Endpoint` or a `Scripted`.

    An answer that cannot be read is asked for again where the temperature lets it differ; then any arm is pulled, and
    the round counts as invalid.
    """
    _, k, rounds = games.batch.inputs.shape
    told, names = instructions(design, k, rounds), names_of(design, games)
    invalid = torch.zeros(len(names), rounds)

    def policy(history: History, uniform: Tensor) -> Tensor:
        t = history.arms.shape[1]
        arms = uniform[:, :-1].argmax(1)
        left = list(range(len(names)))
        asked = [conversation(told, design, names[row], history, row) for row in left]
        for attempt in range(TRIES if design.temperature else 1):
            texts = player.complete(
                [asked[row] for row in left],
                ANSWER if design.reasoning == "N" else REASONED,
                stop=("</Answer>",),
                temperature=design.temperature,
                seeds=[question_seed(games.seeds[row], t, attempt) for row in left],
            )
            read = {row: read_arm(text, design, names[row], uniform[row, -1]) for row, text in zip(left, texts)}
            for row, arm in read.items():
                arms[row] = arms[row] if arm is None else arm
            left = [row for row in left if read[row] is None]
            if not left:
                break
        invalid[left, t] = 1
        return arms

    found = measures.play_bandit(policy, games.batch.inputs, noise(games.seeds, rounds, k, "language model"))
    return {**found._asdict(), "invalid": invalid}


def play_scored(model: Any, designs: Sequence[Design], games: Games) -> list[dict[str, Tensor]]:
    """Games of a local model by designs of one scenario, in lockstep: it chooses by its scores of the K names.

    Temperature 1 samples the softmax of the scores. A calibrated design subtracts the scores under an empty history,
    the first round's, so that a liking for a name or a place does not count. Prompts that were seen are not read again.
    """
    count, k, rounds = games.batch.inputs.shape
    told = [instructions(design, k, rounds) for design in designs]
    rows = [(d, n) for d in range(len(designs)) for n in range(count)]
    names = [names_of(design, games) for design in designs]
    by_arm = torch.tensor(games.names * len(designs))
    calibrated = torch.tensor([[designs[d].calibrated == "c"] for d, _ in rows])
    sampled = torch.tensor([designs[d].temperature == 1 for d, _ in rows])
    known: dict[str, Tensor] = {}
    neutral = torch.zeros(len(rows), k)

    def scores(history: History) -> Tensor:
        asked = [conversation(told[d], designs[d], names[d][n], history, row) for row, (d, n) in enumerate(rows)]
        new = {str(messages): messages for messages in asked if str(messages) not in known}
        begun = [model.chat([*messages, {"role": "assistant", "content": "<Answer>"}]) for messages in new.values()]
        known.update(zip(new, model.score(begun, NAMES[designs[0].scenario][:k])))
        by_name = torch.stack([known[str(messages)] for messages in asked])
        return by_name.log_softmax(1).gather(1, by_arm)

    def policy(history: History, uniform: Tensor) -> Tensor:
        found = scores(history)
        if not history.arms.shape[1]:
            neutral.copy_(found)
        found = torch.where(calibrated, found - neutral, found)
        best = best_of(found.round(decimals=TIE), uniform)
        return torch.where(sampled, models.choose(found, 1.0, uniform[:, -1]), best)

    uniform = noise(games.seeds, rounds, k, "language model").repeat(len(designs), 1, 1)
    found = measures.play_bandit(policy, games.batch.inputs.repeat(len(designs), 1, 1), uniform)
    parts = [field.view(len(designs), count, rounds) for field in found]
    return [{"arms": arms, "rewards": rewards} for arms, rewards in zip(*parts)]


def question_seed(seed: int, t: int, attempt: int) -> int:
    return key(seed, "question", t, attempt) % 2**31


def names_of(design: Design, games: Games) -> list[list[str]]:
    return [[NAMES[design.scenario][i] for i in numbers] for numbers in games.names]


def conversation(told: str, design: Design, names: Sequence[str], history: History, row: int) -> list[dict[str, str]]:
    seen = situation(design, names, history.arms[row].tolist(), history.rewards[row].tolist())
    return [{"role": "system", "content": told}, {"role": "user", "content": seen}]


def read_arm(text: str, design: Design, names: Sequence[str], uniform: Tensor) -> int | None:
    """The arm that an answer names, or one drawn from its distribution; None where it cannot be read."""
    if design.answer != "D":
        return read_choice(text, names)
    shares = read_distribution(text, names)
    if shares is None:
        return None
    return int(models.choose(torch.tensor(shares, dtype=torch.float64).log(), 1.0, uniform))


def judged(found: dict[str, Tensor], games: Games) -> dict[str, Tensor]:
    """Measurements of games: two curves `[N, S]` at the rounds `shown`, and numbers `[N]` at the last."""
    arms, batch = found["arms"], games.batch
    k = batch.means.shape[1]
    rounds = torch.tensor(shown(arms.shape[1])) - 1
    measured = {
        "suffix failure": measures.suffix_failures(arms, batch.targets)[:, rounds].double(),
        "K MinFrac": measures.min_fraction(arms, k)[:, rounds],
        "GreedyFrac": measures.greedy_fraction(arms, found["rewards"], k),
        "mean reward": measures.mean_reward(arms, batch.means),
        "best arm": (arms == batch.targets[:, None]).double().mean(1),
    }
    return measured | ({"invalid": found["invalid"].mean(1)} if "invalid" in found else {})


def names_chosen(found: dict[str, Tensor], games: Games, scenario: str) -> dict[str, Tensor]:
    """Share of rounds `[N]` in which each name was chosen, and in which the first place of the list was."""
    chosen = torch.tensor(games.names).gather(1, found["arms"])
    names = NAMES[scenario][: games.batch.means.shape[1]]
    shares = {f"share of {name}": (chosen == i).double().mean(1) for i, name in enumerate(names)}
    return shares | {"share of the first place": (found["arms"] == 0).double().mean(1)}


def shown(rounds: int) -> list[int]:
    """Rounds at which curves are kept, T/2 and T among them."""
    return sorted({max(1, round(rounds * i / 20)) for i in range(1, 21)} | {middle(rounds)})
