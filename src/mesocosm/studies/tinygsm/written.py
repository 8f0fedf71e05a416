"""The same course on problems that people wrote: GSM8K's questions, programs from a file, and pretrained models."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from math import isnan, nan
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from mesocosm import models
from mesocosm.seeding import generator as keyed
from mesocosm.studies.tinygsm.problems import through_end
from mesocosm.tasks.base import Task
from mesocosm.tasks.word_problem_files import WrittenProblem, read_gsm8k
from mesocosm.tasks.word_problems import WordProblemBatch

if TYPE_CHECKING:
    from mesocosm.studies.tinygsm import Config

VOCABULARY = 49_152
"""Tokens of SmolLM2, for a plan."""
TEACHER = 0.774
"""Share of GSM8K's test problems that GPT-3.5 solves, as the paper gives it."""


class Texts:
    """Problems from the files, and the tokenizer that reads them."""

    def __init__(self, config: "Config") -> None:
        assert config.language_model is not None
        tokenizer = models.load_pretrained(config.language_model).tokenizer
        self.encode, self.decode, self.end = tokenizer.encode, tokenizer.decode, tokenizer.eos_token_id
        self.tokens = tuple(tokenizer.batch_decode([[token] for token in range(len(tokenizer))]))
        self.problems = read_files(config)


def read_files(config: "Config", most: int | None = None) -> dict[str, list[WrittenProblem]]:
    """Problems by the name of their use: "labelled" and "test" ones of GSM8K, and "examples", at most so many of them.

    Raises:
        ValueError: when a file is not named or cannot be read, or holds fewer problems than are asked for.
    """
    for name in ("gsm8k", "programs"):
        if getattr(config, name) is None:
            raise ValueError(f"{name}=None is not legal with a language model: say where the problems are")
    assert config.gsm8k is not None and config.programs is not None
    found, wanted = {}, {"labelled": config.labelled, "test": config.test, "examples": config.examples[-1]}
    try:
        for name, file in (("labelled", "train.jsonl"), ("test", "test.jsonl")):
            found[name] = read_gsm8k(Path(config.gsm8k) / file)
    except ValueError as error:
        raise ValueError(f"gsm8k={config.gsm8k!r} is not legal: {error}") from error
    found["examples"] = read_programs(config.programs, most)
    for name, count in wanted.items():
        if count > len(found[name]):
            raise ValueError(f"{name}={count} is not legal: the file holds {len(found[name])} problems")
    return found


def read_programs(path: str, most: int | None = None) -> list[WrittenProblem]:
    """The first synthetic problems, at most so many, of a file with a JSON object a line, whose program is in `code`,
    as TinyGSM's are.

    Raises:
        ValueError: when the file cannot be read, or telling after how many problems a line holds none.
    """
    problems: list[WrittenProblem] = []
    try:
        with Path(path).expanduser().open(encoding="utf-8") as file:
            for line in islice(file, most):
                row = json.loads(line)
                problems.append(WrittenProblem(str(row["question"]), nan, str(row["code"])))
    except (OSError, ValueError, KeyError, TypeError) as error:
        where = f"after {len(problems)} problems"
        raise ValueError(
            f"programs={path!r} is not legal: {where} comes no question with its code ({error})"
        ) from error
    return problems


@dataclass(frozen=True, kw_only=True)
class Written(Task):
    """Write a program after its question: rows as those of `Problems`, in the tokens of a pretrained model.

    Without `texts` samples are random tokens, which stand for those of the files where a run is priced.
    """

    texts: Texts | None = None

    question: ClassVar[int] = 256
    """Tokens of a question; a longer one loses its beginning."""
    program: ClassVar[int] = 256
    """Tokens of a program; a longer one loses its end."""
    entry: ClassVar[str] = "simple_math_problem()"
    """The call that gives a program's answer, as in TinyGSM."""

    @property
    def input_shape(self) -> tuple[int]:
        return (self.question + self.program - 1,)

    @property
    def output_shape(self) -> tuple[int, int]:
        return (*self.input_shape, len(self.tokens))

    @property
    def tokens(self) -> tuple[str, ...]:
        return self.texts.tokens if self.texts else tuple(map(str, range(VOCABULARY)))

    @property
    def end(self) -> int:
        return self.texts.end if self.texts else 0

    def text(self, tokens: Sequence[int] | Tensor) -> str:
        """What tokens `[T]` say, up to the first end."""
        assert self.texts is not None
        words = [int(token) for token in tokens]
        return self.texts.decode(words[: words.index(self.end)] if self.end in words else words)

    def sample(self, size: int, generator: torch.Generator) -> WordProblemBatch:
        """Synthetic problems, drawn with replacement."""
        if self.texts is None:
            documents = torch.randint(VOCABULARY, (size, self.question + self.program), generator=generator)
            return self._batch(documents, torch.zeros(size))
        problems = self.texts.problems["examples"]
        chosen = torch.randint(len(problems), (size,), generator=generator)
        return self._rows([problems[row] for row in chosen.tolist()])

    def draw(self, count: int, seed: int, name: str) -> WordProblemBatch:
        """The first problems of the test, or a seed's own choice of "labelled" ones or "examples", all different."""
        assert self.texts is not None
        problems = self.texts.problems[name]
        order = range(count) if name == "test" else torch.randperm(len(problems), generator=keyed(seed, name)).tolist()
        return self._rows([problems[row] for row in order[:count]])

    def _rows(self, problems: list[WrittenProblem]) -> WordProblemBatch:
        assert self.texts is not None
        documents = torch.full((len(problems), self.question + self.program), self.end)
        for document, problem in zip(documents, problems):
            asked = self.texts.encode(problem.question + "\n")[-self.question :]
            # The solutions of GSM8K are no programs.
            program = problem.solution if isnan(problem.answer) else ""
            taught = self.texts.encode(program, add_special_tokens=False)[: self.program - 1]
            document[self.question - len(asked) : self.question + len(taught)] = torch.tensor(asked + taught)
        return self._batch(documents, torch.tensor([problem.answer for problem in problems], dtype=torch.float64))

    def _batch(self, documents: Tensor, answer: Tensor) -> WordProblemBatch:
        weights = torch.zeros(len(documents), self.question + self.program - 1)
        weights[:, self.question - 1 :] = through_end(documents[:, self.question :], self.end)
        no_family, prompt = torch.full((2, len(documents)), -1), torch.full((len(documents),), self.question)
        unknown = torch.full((len(documents),), nan)
        return WordProblemBatch(documents[:, :-1], documents[:, 1:], weights, no_family[0], prompt, answer, unknown)


@dataclass(frozen=True, kw_only=True)
class Judged(Written):
    """Say at every token of a program whether its answer will be right."""

    @property
    def output_shape(self) -> tuple[int, int]:
        return (*self.input_shape, 1)

    def _batch(self, documents: Tensor, answer: Tensor) -> WordProblemBatch:
        batch = super()._batch(documents, answer)
        return batch._replace(targets=torch.ones(batch.inputs.shape))


class Pretrained(nn.Module):
    """A pretrained causal model with its own head `[B, T, V]`, or with a new one `[B, T, 1]` to judge."""

    def __init__(self, name: str, task: Task) -> None:
        super().__init__()
        module = models.load_pretrained(name).module
        self.body = module.base_model
        judges = task.output_shape[-1] == 1
        self.head = nn.Linear(module.config.hidden_size, 1, bias=False) if judges else module.get_output_embeddings()

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.body(tokens, use_cache=False).last_hidden_state)

    def forward_with_cache(self, tokens: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """Logits `[B, 1, V]` after the last of the tokens that follow those in `cache`, and the longer cache."""
        read = self.body(tokens, past_key_values=cache, use_cache=True)
        return self.head(read.last_hidden_state[:, -1:]), read.past_key_values
