"""The course of the study: train generators, let them write, train verifiers on what they wrote, let these pick."""

import dataclasses
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from mesocosm import measures, training
from mesocosm.seeding import generator
from mesocosm.studies.tinygsm import cells
from mesocosm.studies.tinygsm.evaluation import (
    choices,
    labelled,
    picked,
    problems,
    score,
    token_scores,
    told,
    write,
)
from mesocosm.studies.tinygsm.problems import Problems
from mesocosm.studies.tinygsm.written import TEACHER, Texts, Written
from mesocosm.tasks.word_problem_files import overlaps
from mesocosm.training import Checkpoints, Population

if TYPE_CHECKING:
    from mesocosm.lab.lab import Lab
    from mesocosm.studies.tinygsm import Config

CHECKPOINTS = 3
"""Checkpoints of a generator whose candidates its verifier learns from: at half of its training, later, and the end."""


class Candidates(NamedTuple):
    """Problems of each seed and their candidates."""

    task: Problems | Written
    batch: Any
    programs: Tensor
    answers: Tensor

    def right(self) -> Tensor:
        return self.answers == self.batch.answer[:, :, None]

    def first(self, replicas: int) -> "Candidates":
        """Those of the first seeds alone."""
        batch = self.batch._make(field[:replicas] for field in self.batch)
        return Candidates(self.task, batch, self.programs[:replicas], self.answers[:replicas])


class Generated(NamedTuple):
    """A trained generator and its candidates, for its verifier and for the test."""

    population: Population
    several: Candidates
    """To learn from, one of each checkpoint."""
    last: Candidates
    """As many, all of the last."""
    test: Candidates


class Experiment:
    def __init__(self, config: "Config", lab: "Lab") -> None:
        self.config, self.lab = config, lab
        self.cells = {cell.name: cell for cell in cells.all_cells(config)}
        self.texts = None
        if config.language_model is not None:
            self.texts = Texts(config)
            self.cells = {name: cells.with_files(config, cell, self.texts) for name, cell in self.cells.items()}

    def run(self) -> None:
        large = self.generated("generator")
        self.overlap(large)
        self.limited_data()

        few = self.config.few
        verifier = self.verify("verifier", large.population, large.several, large.test)
        self.tokens(verifier, large.test)
        if self.texts is None:
            other = self.generated("generator, independent errors")
            self.verify("verifier, independent errors", other.population, other.several, other.test)
        several, last, test = (written.first(few) for written in (large.several, large.last, large.test))
        source = large.population.select(range(few))
        for variant in cells.variants(self.config):
            learned = last if variant == "one checkpoint" else several
            self.verify(f"verifier, {variant}", source, learned, test)
        if not self.config.reported:
            return
        small = self.generated("generator, small")
        self.verify("verifier, small", small.population, small.several, small.test)
        self.verify("verifier, small of large", small.population, several, test)
        self.verify("verifier, large of small", source, small.several, small.test)

    def generated(self, name: str) -> Generated:
        """Train a generator and let it write; greedy decoding and the teacher are recorded."""
        config, cell = self.config, self.cells[name]
        path = self.lab.checkpoint(name)
        kept = Checkpoints(folder=path and path.with_suffix(""))
        history = self.lab.train(dataclasses.replace(cell, measure=kept))
        population, steps = history.population, history.steps[-CHECKPOINTS:]
        task: Any = cell.task
        # A verifier's problems are never the test's, nor is the teacher's answer ever its label.
        to_learn = problems(task, cell.seeds, config.labelled, "labelled")
        to_test = problems(task, cell.seeds, config.test, "test")

        def written(part: str, by: Population, batch: Any, samples: int, temperature: float) -> Candidates:
            full = f"{name}/{part}"
            compute = partial(write, task, by, batch, samples, temperature, part)
            found = self.lab.remember(full, compute)
            return Candidates(task, batch, found["programs"], found["answers"])

        warm = config.temperature
        parts = [
            written(f"labelled at {step}", kept.at(population, [step] * len(population)), to_learn, 1, warm)
            for step in steps
        ]
        several = Candidates(
            task,
            to_learn,
            torch.cat([part.programs for part in parts], 2),
            torch.cat([part.answers for part in parts], 2),
        )
        last = several
        if name == "generator" and config.reported:
            last = written("labelled at the end", population, to_learn, len(steps), warm)
        test = written("test", population, to_test, config.samples, warm)
        greedy = written("greedy", population, to_test, 1, 0.0)
        self.record(name, told("greedy", greedy.answers[:, :, 0], to_test))
        by_paper = {"teacher": torch.full((len(cell.seeds),), TEACHER, dtype=torch.float64)}
        self.record(name, told("teacher", to_test.teacher, to_test) if self.texts is None else by_paper)
        self.record(name, {"failed": test.answers.isnan().double().mean((1, 2))})
        return Generated(population, several, last, test)

    def verify(self, name: str, source: Population, learned: Candidates, test: Candidates) -> Population:
        """Train a verifier that starts from `source`, and let it pick among the candidates of the test."""
        cell = self.cells[name]
        right = learned.right()
        if name.endswith("shuffled"):
            right = torch.stack([row[shuffled(row.numel(), seed)] for row, seed in zip(right.flatten(1), cell.seeds)])
            right = right.view(learned.answers.shape)
        elif name.endswith("all right"):
            right = torch.ones_like(right)
        data = labelled(learned.task, learned.batch, learned.programs, right, name.endswith("last token"))
        rows = torch.arange(len(data.inputs)).view(len(cell.seeds), -1)
        cell = dataclasses.replace(cell, stream=training.Epochs(data, cell.batch_size, cell.seeds, rows))
        if not name.endswith("from scratch"):
            cell = dataclasses.replace(cell, start=partial(training.inherit, source=source))
        if name.endswith("head only"):
            head = training.inherit(self.lab.population(cell), source)
            still: Any = cell.optimiser
            still = dataclasses.replace(still, weight_decay=0.0)
            cell = dataclasses.replace(cell, objective=partial(cells.head_only, head), optimiser=still)
        population = self.lab.train(cell).population
        compute = lambda: {"scores": score(test.task, population, test.batch, test.programs)}
        scores = self.lab.remember(f"{name}/scores", compute)["scores"]
        n = 1
        while n <= self.config.samples:
            self.record(name, picked(test.batch, test.answers, scores, n), n=n)
            n *= 2
        self.record(name, choices(test.batch, test.programs, test.answers, scores))
        chosen = torch.stack([measures.best_of_n(a, s, self.config.samples) for a, s in zip(test.answers, scores)])
        self.record(name, told("verify", chosen, test.batch))
        return population

    def limited_data(self) -> None:
        """Generators on few unique examples, and on those of one family."""
        config, cell = self.config, self.cells["data"]
        population = self.lab.train(cell).population
        task: Any = cell.task
        batch = problems(task, cell.seeds, config.test, "test")
        compute = partial(write, task, population, batch, 1, 0.0, "greedy")
        answers = self.lab.remember("data/greedy", compute)["answers"][:, :, 0]
        self.record("data", told("greedy", answers, batch), **cell.settings)

    def overlap(self, large: Generated) -> None:
        """How many test questions share 8 words in a row with labelled ones; templates make it many."""
        texts = [
            [
                written.task.text(row[row != written.task.end])
                for row in written.batch.inputs[0, :, : written.task.question]
            ]
            for written in (large.test, large.several)
        ]
        share = sum(overlaps(texts[0], texts[1], 8)) / len(texts[0])
        self.lab.record("generator", {"8-gram overlap": share}, seed=self.cells["generator"].seeds[0])

    def tokens(self, verifier: Population, test: Candidates) -> None:
        """What the first seed's verifier thinks along a right and a wrong program of one problem."""
        names = ("tokens", "probabilities", "weights")
        compute = partial(token_scores, test.task, verifier, test.batch, test.programs, test.right())
        found = self.lab.remember("verifier/tokens", compute)
        for kind, *columns in zip(("right", "wrong"), *(found[name].tolist() for name in names)):
            for place, (token, probability, weight) in enumerate(zip(*columns)):
                if weight:
                    self.lab.record(
                        "tokens",
                        {"probability": probability},
                        seed=self.cells["verifier"].seeds[0],
                        candidate=kind,
                        place=place,
                        token=test.task.tokens[token],
                    )

    def record(self, name: str, metrics: dict[str, Tensor], **settings: Any) -> None:
        cell = self.cells[name]
        self.lab.record(name, metrics, seed=list(cell.seeds), step=cell.steps, **settings)


def shuffled(count: int, seed: int) -> Tensor:
    return torch.randperm(count, generator=generator(seed, "shuffled labels"))
