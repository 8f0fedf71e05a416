"""What is measured: the answers of a pruned language model, and recall and look-up of trained networks."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, cached_property, lru_cache, partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from mesocosm import models, tasks, training
from mesocosm.models import LanguageModel
from mesocosm.seeding import generator
from mesocosm.studies.fact_recall_downscaling import questions, trivia
from mesocosm.studies.fact_recall_downscaling.trivia import Trivia

if TYPE_CHECKING:
    from mesocosm.studies.fact_recall_downscaling import Config
    from mesocosm.training import Population

CALIBRATION, HELD_OUT = 512, 256
"""Tokens in a passage of running text, for calibration and for the loss."""
TOGETHER = 8
"""Functions that are read at a time."""
FUNCTIONS = ("dense", "wanda", "sparsegpt")
"""Methods after which functions are asked for."""


@lru_cache(maxsize=1)
def load(name: str) -> LanguageModel:
    """A pretrained language model whose first tokens tell all candidates apart; loaded once."""
    model = models.load_pretrained(name)
    for asked in map(questions.recall, questions.LISTS):
        questions.first_tokens(model, asked.prompts[0], asked.candidates)
    questions.first_tokens(model, questions.POINT.format(1, 2), list(questions.LABELS))
    return model


class Calibration:
    """Passages of running English on which a dense model's weights are weighed."""

    def __init__(self, model: LanguageModel, path: str | None, count: int) -> None:
        rows = passages(model, path, "train", count, CALIBRATION)
        self.batches = [torch.tensor([row], device=model.module.device) for row in rows]
        self.held_out = passages(model, path, "valid", 1, HELD_OUT)
        self.model = model

    @cached_property
    def norms(self) -> dict[str, Tensor]:
        """Of the dense model's inputs, the same for all sparsities."""
        return training.input_norms(self.model.module, self.batches)

    @cached_property
    def whole(self) -> dict[str, Tensor]:
        """A copy of the dense model's weights, to go back to."""
        return {name: weight.detach().clone() for name, weight in self.model.module.named_parameters()}


@contextmanager
def pruned(calibration: Calibration, method: str, sparsity: float) -> Iterator[float]:
    """The language model of this sparsity, as long as the context lasts; gives the share of zeros."""
    module = calibration.model.module
    if method == "dense":
        yield 0.0
        return
    whole = calibration.whole
    try:
        if method == "sparsegpt":
            yield training.sparsegpt(module, sparsity, calibration.batches)
        elif method == "wanda":
            yield training.prune(module, sparsity, training.wanda(calibration.norms))
        elif method == "magnitude":
            yield training.prune(module, sparsity, training.magnitude)
        else:
            yield training.prune(module, sparsity, training.random_scores(generator("fact recall", "random mask")))
    finally:
        for name, weight in module.named_parameters():
            weight.data.copy_(whole[name])


def measure(
    calibration: Calibration, method: str, sparsity: float, config: "Config", asked_freely: Sequence[Trivia]
) -> dict[str, Tensor]:
    """All answers of a language model at one sparsity: 1 where right, by question; for functions, a share by rule.

    "other" is 1 where the answer is the one that competes, as `Questions.other` has it.
    """
    model = calibration.model
    with pruned(calibration, method, sparsity) as zeros:
        asked = {
            "recall": [questions.recall(name) for name in questions.LISTS],
            "override": [questions.override(name) for name in questions.LISTS],
            "retrieval": [questions.retrieval(config.pairs)],
            "invented": [questions.invented()],
        }
        found = {}
        for kind, sets in asked.items():
            answers = [questions.answer(model, mine) for mine in sets]
            for metric in ("right", "other"):
                hits = [said == getattr(mine, metric) for said, mine in zip(answers, sets)]
                found[f"{kind}: {metric}"] = torch.cat(hits).double()
        if method in FUNCTIONS:
            for kind, shuffled in (("function", False), ("function, shuffled labels", True)):
                groups = torch.arange(config.rules).split(TOGETHER)
                shares = [questions.learned(model, group.tolist(), config.examples, shuffled) for group in groups]
                found[f"{kind}: right"] = torch.cat(shares)
        if asked_freely:
            found["trivia: right"] = trivia.right(model, asked_freely, open_book=False)
        if config.evidence:
            found["trivia, open book: right"] = trivia.right(model, asked_freely, open_book=True)
        loss = -torch.cat(model.log_probabilities(calibration.held_out)).mean()
        found["text: loss"] = loss.double()[None]
        found["text: share of zeros"] = torch.tensor([zeros], dtype=torch.float64)
        sizes = [weight.numel() for weight in model.module.parameters()]
        found["text: parameters"] = torch.tensor([sum(sizes)], dtype=torch.float64)
    return found


def text(path: str | None, split: Literal["train", "valid"]) -> tasks.TextBytes:
    """A file's running text, or Python's help pages, in windows that hold a passage of any tokenizer."""
    return tasks.TextBytes(path=path, length=16 * CALIBRATION, blocks=20, split=split)


def passages(
    model: LanguageModel, path: str | None, split: Literal["train", "valid"], count: int, tokens: int
) -> list[list[int]]:
    windows = text(path, split).sample(count, generator("fact recall", "text")).inputs
    return [model.encode(bytes(window.tolist()).decode(errors="ignore"))[:tokens] for window in windows]


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
