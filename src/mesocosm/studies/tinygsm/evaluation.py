"""Candidate programs, their answers, and what selecting among them by a verifier or a vote is worth."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mesocosm import measures, models, sandbox
from mesocosm.seeding import generator
from mesocosm.studies.tinygsm.problems import Problems, through_end, to_judge
from mesocosm.studies.tinygsm.written import Written
from mesocosm.tasks.word_problems import WordProblemBatch
from mesocosm.training import Population

SLICE = 250
"""Rows of a replica that are written or judged at once."""
FAMILIES = ("chain", "comparison", "unknown start")


class Labelled(NamedTuple):
    inputs: Tensor
    targets: Tensor
    weights: Tensor


def problems(task: Problems | Written, seeds: Sequence[int], count: int, name: str) -> Any:
    """Problems of each seed's own, a batch of tensors `[R, count, ...]`."""
    samples = [task.draw(count, seed, name) for seed in seeds]
    return WordProblemBatch(*map(torch.stack, zip(*samples)))


def write(
    task: Problems | Written, population: Population, batch: Any, samples: int, temperature: float, name: str
) -> dict[str, Tensor]:
    """`samples` programs of each replica for each of its problems, and the answers that they give in the sandbox.

    Returns:
        `programs` `[R, P, samples, PROGRAM]` and `answers` `[R, P, samples]`, NaN where a program gave no number.
    """
    questions = batch.inputs[:, :, : task.question].repeat_interleave(samples, 1)
    rows = questions.shape[1]
    seeds = [population.seeds[r] for r in range(len(population))]
    uniforms = torch.stack([torch.rand(rows, task.program, generator=generator(seed, name)) for seed in seeds])

    def go_on(model: nn.Module, question: Tensor, uniform: Tensor) -> Tensor:
        return models.generate(model, question, task.program, temperature, uniform)

    device = population.device
    parts = [
        population.map(go_on, q.to(device), u.to(device)).cpu()
        for q, u in zip(questions.split(SLICE, 1), uniforms.split(SLICE, 1))
    ]
    written = torch.cat(parts, 1)
    # What a model writes after its first end is no part of the program.
    programs = written.where(through_end(written, task.end).bool(), task.end).unflatten(1, (-1, samples))
    return {"programs": programs, "answers": execute(task, programs)}


def execute(task: Problems | Written, programs: Tensor) -> Tensor:
    """What programs `[..., PROGRAM]` give, each different one run once; float64 `[...]`, NaN for what is no number."""
    texts = [task.text(program) for program in programs.flatten(0, -2).tolist()]
    different = list(dict.fromkeys(texts))
    outcomes = sandbox.execute_all(different, entry=task.entry)
    values = dict(zip(different, measures.numeric_answers([[o.value for o in outcomes]])[0].tolist()))
    return torch.tensor([values[text] for text in texts], dtype=torch.float64).view(programs.shape[:-1])


def labelled(
    task: Problems | Written, batch: Any, programs: Tensor, right: Tensor, last_only: bool = False
) -> Labelled:
    """Candidates `[R, P, n, PROGRAM]` with their labels `[R, P, n]`, as R x P x n rows to learn from."""
    questions = batch.inputs[:, :, None, : task.question].expand(-1, -1, right.shape[2], -1)
    data = Labelled(*to_judge(questions.flatten(0, 2), programs.flatten(0, 2), right.flatten().float(), task.end))
    if last_only:
        later = data.weights.flip(1).cumsum(1).flip(1) - data.weights
        data = data._replace(weights=data.weights * (later == 0))
    return data


def score(task: Problems | Written, verifier: Population, batch: Any, programs: Tensor) -> Tensor:
    """The verifier's logit at the last token of each candidate `[R, P, n, PROGRAM]`; `[R, P, n]`.

    What a generator wrote more than once for a problem is read once.
    """
    data = labelled(task, batch, programs, torch.zeros(programs.shape[:3]))
    inputs, weights = (field.unflatten(0, (len(verifier), -1)) for field in (data.inputs, data.weights))
    scores = []
    for r, rows in enumerate(inputs):
        different, which = rows.unique(dim=0, return_inverse=True)
        last = (weights[r] * torch.arange(weights.shape[-1])).argmax(-1)
        places = torch.empty(len(different), dtype=last.dtype).scatter_(0, which, last)
        scores.append(_scores_at(verifier.select([r]), different, places)[which])
    return torch.stack(scores).view(programs.shape[:3])


def _scores_at(verifier: Population, rows: Tensor, places: Tensor) -> Tensor:
    """The one replica's score at one place of each of the rows `[N, T]`; `[N]`."""

    def at_place(model: nn.Module, rows: Tensor, place: Tensor) -> Tensor:
        return model(rows).squeeze(-1).gather(1, place[:, None]).squeeze(1)

    device = verifier.device
    parts = [
        verifier.map(at_place, i[None].to(device), p[None].to(device))[0].cpu()
        for i, p in zip(rows.split(SLICE), places.split(SLICE))
    ]
    return torch.cat(parts)


def told(name: str, answers: Tensor, batch: Any) -> dict[str, Tensor]:
    """The share of answers `[R, P]` that are right, in all and by family; `[R]` by name."""
    right = (answers == batch.answer).double()
    found = {name: right.mean(1)}
    for number, family in enumerate(FAMILIES):
        here = batch.family == number
        found[f"{name}, {family}"] = (right * here).sum(1) / here.sum(1)
    return found


def picked(batch: Any, answers: Tensor, scores: Tensor, n: int) -> dict[str, Tensor]:
    """Accuracy of what is chosen from the first n candidates, `[R]` by name."""
    by_score = torch.stack([measures.best_of_n(a, s, n) for a, s in zip(answers, scores)])
    by_vote = torch.stack([measures.majority_answer(a, n) for a in answers])
    right = answers == batch.answer[:, :, None]
    return {
        "verify": (by_score == batch.answer).double().mean(1),
        "majority": (by_vote == batch.answer).double().mean(1),
        "pass": torch.stack([measures.pass_at_n(r, n).mean() for r in right]),
    }


def choices(batch: Any, programs: Tensor, answers: Tensor, scores: Tensor) -> dict[str, Tensor]:
    """What a verifier's choice is held against, and how well its scores tell right from wrong; `[R]` by name.

    A score depends on the program alone, so that a verifier which knows nothing chooses among the different programs,
    however often each was written: that is the accuracy "blind choice".
    """
    right = answers == batch.answer[:, :, None]
    same = (programs[:, :, :, None] == programs[:, :, None]).all(-1)
    share = 1 / same.sum(-1).double()
    return {
        "mean sample": right.double().mean((1, 2)),
        "blind choice": ((right * share).sum(2) / share.sum(2)).mean(1),
        "AUC": torch.stack([measures.within_problem_auc(s, r).nanmean() for s, r in zip(scores, right)]),
        "mean probability": scores.double().sigmoid().mean((1, 2)),
    }


def token_scores(
    task: Problems | Written, verifier: Population, batch: Any, programs: Tensor, right: Tensor
) -> dict[str, Tensor]:
    """A right and a wrong program of the first seed's first unknown start that has both, with the probability after
    each token that the program will be right.
    """
    both = right[0].any(1) & ~right[0].all(1)
    wanted = both & (batch.family[0] == 2)
    problem = int((wanted if wanted.any() else both).long().argmax())
    places = [int(right[0, problem].long().argmax()), int((~right[0, problem]).long().argmax())]
    written = programs[0, problem, places]
    question = batch.inputs[0, problem, None, : task.question].expand(2, -1)
    rows, _, weights = to_judge(question, written, torch.zeros(2), task.end)
    scores = verifier.select([0]).map(lambda model, rows: model(rows).squeeze(-1), rows[None].to(verifier.device))
    found = {"tokens": rows, "probabilities": scores[0].sigmoid().cpu(), "weights": weights}
    return {name: columns[:, task.question :] for name, columns in found.items()}
