"""TriviaQA: questions that a language model answers in its own words, closed book or with a passage that tells.

Source: Joshi, Choi, Weld & Zettlemoyer (2017), TriviaQA, arXiv 1705.03551, whose files and normalisation of answers
these are
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mesocosm.models import LanguageModel

SHOTS = 4
"""Questions at the head of a file that are shown with their answers, not asked."""
AROUND = 50
"""Words of evidence on each side of where it names an answer."""
LONGEST = 24
"""Tokens in an answer."""


class Trivia(NamedTuple):
    question: str
    answer: str
    accepted: frozenset[str]
    """All answers that count, normalised."""
    passage: str
    """Evidence that names one of them, or nothing."""


def normalised(answer: str) -> str:
    """An answer in lower case, without punctuation, articles and doubled spaces, as TriviaQA compares them."""
    words = re.sub(r"""[!-/:-@\[-`{-~‘’´]""", " ", answer.lower())
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", words).split())


def read(file: str, evidence: str | None, count: int) -> list[Trivia]:
    """The first questions of a file of TriviaQA, `SHOTS` to show and `count` to ask.

    Args:
        evidence: folder of the pages that a question's `EntityPages` name; questions whose pages do not name an answer
            are then left out. None takes all questions, without passages.

    Raises:
        OSError: for a file that cannot be read.
        ValueError: when it is not TriviaQA's, or holds too few questions.
    """
    if evidence is not None and not Path(evidence).is_dir():
        raise ValueError(f"evidence={evidence} is not legal: it must be the folder of TriviaQA's pages")
    found: list[Trivia] = []
    try:
        for row in json.loads(Path(file).read_text(encoding="utf-8"))["Data"]:
            if len(found) == SHOTS + count:
                break
            answer = row["Answer"]
            names = {answer["Value"], *answer["Aliases"], *answer["NormalizedAliases"]}
            passage = told(names, evidence, row.get("EntityPages", ())) if evidence else ""
            if passage or not evidence:
                accepted = frozenset(map(normalised, names)) - {""}
                found.append(Trivia(row["Question"], answer["Value"], accepted, passage))
    except (KeyError, TypeError, ValueError) as error:
        legal = "it must be a file of TriviaQA with Data, Question and Answer of Value, Aliases and NormalizedAliases"
        raise ValueError(f"triviaqa={file} is not legal: {legal} ({error!r})") from error
    if len(found) <= SHOTS:
        of = " whose pages name an answer" if evidence else ""
        raise ValueError(f"triviaqa={file} is not legal: it must hold more than {SHOTS} questions{of}")
    return found


def told(names: set[str], folder: str, pages: Sequence[dict[str, str]]) -> str:
    """Words around the first place in a question's pages that names an answer; nothing where none does."""
    longest_first = sorted(names - {""}, key=len, reverse=True)
    name = re.compile(rf"(?<!\w)({'|'.join(map(re.escape, longest_first))})(?!\w)", re.IGNORECASE)
    for page in pages:
        path = Path(folder) / page["Filename"]
        text = " ".join(path.read_text(encoding="utf-8", errors="ignore").split()) if path.is_file() else ""
        if place := name.search(text):
            before, after = text[: place.start()].split(" "), text[place.end() :].split(" ")
            return " ".join(before[-AROUND:]) + place[0] + " ".join(after[:AROUND])
    return ""


def prompts(questions: Sequence[Trivia], open_book: bool) -> list[str]:
    """A prompt for each question behind the first `SHOTS`, which it begins with."""

    def asked(one: Trivia) -> str:
        return f"{f'Context: {one.passage}' + chr(10) if open_book else ''}Question: {one.question}\nAnswer:"

    shown = "".join(f"{asked(one)} {one.answer}\n\n" for one in questions[:SHOTS])
    return [shown + asked(one) for one in questions[SHOTS:]]


def right(model: LanguageModel, questions: Sequence[Trivia], open_book: bool) -> Tensor:
    """1 where the line that a model writes is an accepted answer, 0 else `[N]`."""
    said = model.generate(prompts(questions, open_book), LONGEST, stop=["\n"])
    hits = [normalised(text) in one.accepted for text, one in zip(said, questions[SHOTS:])]
    return torch.tensor(hits, dtype=torch.float64)
