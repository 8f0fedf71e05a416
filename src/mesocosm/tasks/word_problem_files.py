"""Word problems that people wrote: GSM8K and SVAMP from their files, numbers in answers, and texts that overlap."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

__all__: list[str] = []

MARK = "####"
NUMBER = re.compile(r"(?P<sign>(?<![\w).])-)?\$?(?P<digits>\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)")


class WrittenProblem(NamedTuple):
    question: str
    answer: float
    solution: str
    """The worked answer of GSM8K, or the equation of SVAMP."""


def final_number(text: str) -> float | None:
    """The number after the last `####`, as GSM8K marks an answer, or else the last number in a text; None without one.

    Commas between thousands and a dollar sign are skipped: `-$1,080.50` is -1080.5. The line of 48-24 is no sign.
    """
    _, mark, end = text.rpartition(MARK)
    found = list(NUMBER.finditer(end))
    if not found:
        return None
    number = found[0] if mark else found[-1]
    return float((number["sign"] or "") + number["digits"].replace(",", ""))


def read_gsm8k(path: str | Path) -> list[WrittenProblem]:
    """Problems of a file of GSM8K, `train.jsonl` or `test.jsonl`, in its order.

    Raises:
        ValueError: when the file cannot be read, or naming the line that holds no problem.

    Source: Cobbe et al. (2021), Training verifiers to solve math word problems, arXiv 2110.14168
    """
    problems = []
    for number, line in enumerate(_read(path).rstrip("\n").split("\n"), 1):
        try:
            row = json.loads(line)
            problems.append(_problem(row["question"], _marked(row["answer"]), row["answer"]))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"path={str(path)!r} is not legal: line {number} is no problem of GSM8K ({error})"
            ) from error
    return problems


def _marked(solution: str) -> float | None:
    return final_number(solution) if MARK in solution else None


def read_svamp(path: str | Path) -> list[WrittenProblem]:
    """Problems of the file of SVAMP, `SVAMP.json`, in its order; a question is the story and what it asks.

    Raises:
        ValueError: when the file cannot be read, or naming the row that holds no problem.

    Source: Patel et al. (2021), Are NLP models really able to solve simple math word problems?, arXiv 2103.07191
    """
    text = _read(path)
    try:
        rows = json.loads(text)
    except ValueError as error:
        raise ValueError(f"path={str(path)!r} is not legal: it is no file of JSON ({error})") from error
    problems = []
    for number, row in enumerate(rows):
        try:
            story = row["Body"].strip()
            question = f"{story}{'' if story.endswith(('.', ',', '?', '!')) else ','} {row['Question'].strip()}"
            problems.append(_problem(question, float(row["Answer"]), row["Equation"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"path={str(path)!r} is not legal: row {number} is no problem of SVAMP ({error})"
            ) from error
    return problems


def _read(path: str | Path) -> str:
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ValueError(f"path={str(path)!r} is not legal: it must be a file that can be read ({error})") from error


def _problem(question: str, answer: float | None, solution: str) -> WrittenProblem:
    if answer is None or not question:
        raise ValueError("no question, or no number as its answer")
    return WrittenProblem(question, answer, solution)


def overlaps(texts: Sequence[str], others: Iterable[str], words: int) -> list[bool]:
    """Whether each text shares a run of so many words with any other, numbers, marks and case aside.

    Source: Liu et al. (2023), TinyGSM: achieving >80% on GSM8k with small language models, whose decontamination it is
    with 13 words, arXiv 2312.09241

    Raises:
        ValueError: when words is less than 1.
    """
    if words < 1:
        raise ValueError(f"words={words} is not legal: it must be at least 1")
    known = {run for text in others for run in _runs(text, words)}
    return [not known.isdisjoint(_runs(text, words)) for text in texts]


def _runs(text: str, words: int) -> Iterable[tuple[str, ...]]:
    plain = re.findall(r"[^\W\d_]+", text.lower())
    return (tuple(plain[i : i + words]) for i in range(len(plain) - words + 1))
