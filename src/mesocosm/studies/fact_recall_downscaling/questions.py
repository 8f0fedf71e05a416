"""Questions to a language model: facts by heart, and facts, pairs and functions that the prompt tells."""

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from mesocosm.models import LanguageModel
from mesocosm.seeding import generator
from mesocosm.studies.fact_recall_downscaling.lists import CAPITALS, INVENTED, SYMBOLS

LISTS = {"capitals": (CAPITALS, "The capital of {} is"), "symbols": (SYMBOLS, "The chemical symbol for {} is")}
OVERRIDE = "In this game, {0} {1}. Remember: in this game, {0}"
SHIFT = 7
"""The counterfactual answer is that of the question so many places further on in the list."""
LABELS = (" no", " yes")
POINT = "{} {} ->"
MARGIN = 1.0
"""Least distance of a point from the line that parts the labels."""
QUERIES = 16
"""Points of each function that are asked."""


class Questions(NamedTuple):
    """Prompts with the same K candidates; `right` and `other` are indices `[P]` among these."""

    prompts: list[str]
    candidates: list[str]
    right: Tensor
    other: Tensor
    """The counterfactual answer by heart, the stored answer in an override, the other pair's in a look-up."""
    of_two: bool = False
    """Whether only these two compete."""


def recall(name: str) -> Questions:
    """Facts of a list, closed book."""
    facts, prompt = LISTS[name]
    right = torch.arange(len(facts))
    return Questions([prompt.format(key) for key in facts], list(facts.values()), right, _shifted(right))


def override(name: str) -> Questions:
    """The same, after a sentence that says another answer, which is then the right one."""
    asked = recall(name)
    begun = [f"{prompt[0].lower()}{prompt[1:]}" for prompt in asked.prompts]
    told = [OVERRIDE.format(p, asked.candidates[i]) for p, i in zip(begun, asked.other.tolist())]
    return asked._replace(prompts=told, right=asked.other, other=asked.right)


def invented() -> Questions:
    """Capitals of countries that do not exist, closed book: nobody can know them."""
    prompt, right = LISTS["capitals"][1], torch.arange(len(INVENTED))
    return Questions([prompt.format(country) for country in INVENTED], list(CAPITALS.values()), right, _shifted(right))


def retrieval(count: int) -> Questions:
    """Capitals of two countries that do not exist, and the question for one of them."""
    capitals = list(CAPITALS.values())
    stream = generator("fact recall", "retrieval")
    prompts, right, other = [], [], []
    for number in range(count):
        countries = torch.randperm(len(INVENTED), generator=stream)[:2].tolist()
        answers = torch.randperm(len(capitals), generator=stream)[:2].tolist()
        asked = number % 2
        told = "".join(f"- {INVENTED[c]}: {capitals[a]}\n" for c, a in zip(countries, answers))
        prompts.append(f"Capitals:\n{told}- {INVENTED[countries[asked]]}:")
        right.append(answers[asked])
        other.append(answers[1 - asked])
    return Questions(prompts, capitals, torch.tensor(right), torch.tensor(other), of_two=True)


def function(number: int, count: int, shuffled: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Points of two digits `[N, 2]`, on which side of a random line each is `[N]`, and the labels to show `[N]`.

    Labels are in random order if shuffled, else the sides.
    """
    stream = generator("fact recall", "function", number)
    angle = 2 * math.pi * torch.rand(1, generator=stream).item()
    places = torch.randperm(100, generator=stream)
    points = torch.stack([places // 10, places % 10], dim=1)
    distance = (points - 4.5) @ torch.tensor([math.cos(angle), math.sin(angle)])
    points, side = (field[distance.abs() > MARGIN][:count] for field in (points, (distance > 0).long()))
    return points, side, side[torch.randperm(len(side), generator=stream)] if shuffled else side


def learned(model: LanguageModel, functions: Sequence[int], examples: int, shuffled: bool) -> Tensor:
    """Share `[F]` of right labels of each function's `QUERIES` last points, after at least so many examples.

    One reading of all points and labels in a row gives all answers: each point is asked after those before it.
    """
    spell = partial(model.tokenizer.encode, add_special_tokens=False)
    labels = [spell(label)[0] for label in LABELS]
    rows, places, sides = [], [], []
    for number in functions:
        points, side, shown = function(number, examples + QUERIES, shuffled)
        tokens, asked = model.encode("")[:1], []
        for point, label in zip(points.tolist(), shown.tolist()):
            tokens += spell(POINT.format(*point))
            asked.append(len(tokens) - 1)
            tokens += [labels[label], *spell("\n")]
        rows.append(tokens)
        places.append(asked[examples:])
        sides.append(side[examples:])
    longest = max(map(len, rows))
    padded = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    said = model.logits(padded, torch.tensor(places))[..., labels].argmax(-1).cpu()
    return (said == torch.stack(sides)).double().mean(1)


def _shifted(index: Tensor) -> Tensor:
    return (index + SHIFT) % len(index)


def first_tokens(model: LanguageModel, prompt: str, candidates: list[str]) -> list[list[int]]:
    """The first token of each candidate behind a prompt.

    Raises:
        ValueError: when two candidates begin with the same token, so that it does not tell them apart.
    """
    before = model.encode(prompt)
    firsts = [model.encode(f"{prompt} {word.strip()}")[len(before) : len(before) + 1] for word in candidates]
    for i, token in enumerate(firsts):
        if not token or token in firsts[:i]:
            same = candidates[firsts.index(token)]
            raise ValueError(f"this language model is not legal: {candidates[i]!r} and {same!r} begin with one token")
    return firsts


def answer(model: LanguageModel, questions: Questions) -> Tensor:
    """The index `[P]` of the candidate whose first token is likeliest, among all or among two."""
    firsts = first_tokens(model, questions.prompts[0], questions.candidates)
    scores = model.score(questions.prompts, firsts)
    if questions.of_two:
        pair = torch.stack([questions.right, questions.other], dim=1)
        return pair.gather(1, scores.gather(1, pair).argmax(1, keepdim=True))[:, 0]
    return scores.argmax(-1)
