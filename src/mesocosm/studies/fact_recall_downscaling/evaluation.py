"""What is measured: the answers of a pruned language model, and recall and look-up of trained networks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, lru_cache, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mesocosm import models, tasks, training
from mesocosm.models import LanguageModel
from mesocosm.seeding import generator
from mesocosm.studies.fact_recall_downscaling import questions

if TYPE_CHECKING:
    from mesocosm.training import Population

CALIBRATION, HELD_OUT = 512, 256
"""Tokens of running text, for Wanda's norms of inputs and for the loss."""


@lru_cache(maxsize=1)
def load(name: str) -> LanguageModel:
    """A pretrained language model whose first tokens tell all candidates apart; loaded once."""
    model = models.load_pretrained(name)
    for asked in map(questions.recall, questions.LISTS):
        questions.first_tokens(model, asked.prompts[0], asked.candidates)
    questions.first_tokens(model, questions.POINT.format(1, 2), list(questions.LABELS))
    return model


@lru_cache(maxsize=1)
def norms(model: LanguageModel, text: tuple[int, ...]) -> dict[str, Tensor]:
    """Norms of the dense model's inputs on calibration text, the same for all sparsities."""
    return training.input_norms(model.module, [torch.tensor([text], device=model.module.device)])


@contextmanager
def pruned(model: LanguageModel, method: str, sparsity: float, text: list[int]) -> Iterator[float]:
    """A language model of this sparsity, as long as the context lasts; gives the share of zeros."""
    module = model.module
    if method == "wanda":
        score = training.wanda(norms(model, tuple(text)))
    elif method == "random":
        score = training.random_scores(generator("fact recall", "random mask"))
    else:
        score = training.magnitude
    whole = {name: weight.clone() for name, weight in module.state_dict().items()}
    try:
        yield training.prune(module, sparsity, score)
    finally:
        module.load_state_dict(whole)


def measure(
    model: LanguageModel, method: str, sparsity: float, pairs: int, rules: int, examples: int
) -> dict[str, Tensor]:
    """All answers of a language model at one sparsity: 1 where right, by question; for functions, a share by rule.

    "other" is 1 where the answer is the one that competes, as `Questions.other` has it.
    """
    text = passage(model)
    with pruned(model, method, sparsity, text[:CALIBRATION]) as zeros:
        asked = {
            "recall": [questions.recall(name) for name in questions.LISTS],
            "override": [questions.override(name) for name in questions.LISTS],
            "retrieval": [questions.retrieval(pairs)],
            "invented": [questions.invented()],
        }
        found = {}
        for kind, sets in asked.items():
            answers = [questions.answer(model, mine) for mine in sets]
            for metric in ("right", "other"):
                hits = [said == getattr(mine, metric) for said, mine in zip(answers, sets)]
                found[f"{kind}: {metric}"] = torch.cat(hits).double()
        for kind, shuffled in (("function", False), ("function, shuffled labels", True)):
            shares = [questions.learned(model, number, examples, shuffled) for number in range(rules)]
            found[f"{kind}: right"] = torch.stack(shares)
        loss = -torch.cat(model.log_probabilities([text[CALIBRATION:]])).mean()
        found["text: loss"] = loss.double()[None]
        found["text: share of zeros"] = torch.tensor([zeros], dtype=torch.float64)
    return found


def passage(model: LanguageModel) -> list[int]:
    """Tokens of running English, `CALIBRATION + HELD_OUT` of them, from Python's help pages."""
    window = tasks.TextBytes(length=8192, blocks=20).sample(1, generator("fact recall", "text")).inputs[0]
    return model.encode(bytes(window.tolist()).decode(errors="ignore"))[: CALIBRATION + HELD_OUT]


def knowledge(task: tasks.FactRecall) -> "Callable[[Population, int], dict[str, Tensor]]":
    """Measures the share of facts that are recalled, and of objects that are read in the context, `[R]` each.

    Recall is closed book: of a row's first fact, before which nothing stands. Reading is of a row's last object.
    """

    @cache
    def tests() -> Any:
        return task.sample(1024, generator("fact recall", "test", task.facts))

    def shares(batch: Any, model: nn.Module) -> dict[str, Tensor]:
        hits = (model(batch.inputs).argmax(-1) == batch.targets).double()
        read = batch.in_context.double()
        return {"recall": hits[:, 2] @ (1 - read) / (1 - read).sum(), "in context": hits[:, -1] @ read / read.sum()}

    def measure(population: "Population", step: int) -> dict[str, Tensor]:
        batch = tests()._make(field.to(population.device) for field in tests())
        return population.map(partial(shares, batch))

    return measure
