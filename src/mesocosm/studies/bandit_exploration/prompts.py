"""What a language model is told of a bandit, and what is read from its answer.

The wording is this study's own. A design is a code such as `BNRN0`, one letter an axis:

1. scenario: B buttons, A advertisements
2. framing: N neutral, S suggests to balance trying and choosing
3. history: R raw, round by round; S summarised by arm
4. reasoning: N none, C step by step, R step by step and reminded of it at the end (the paper's C with a tilde)
5. answer: 0 or 1 a choice at that temperature, D a distribution over arms at temperature 0

A small c behind it (`BNRN0c`) calibrates scores; see `evaluation.play_scored`.
"""

import re
import zlib
from collections.abc import Sequence
from typing import NamedTuple

STORIES = {
    "B": "You are in a room with {k} buttons of different colours. In each of {rounds} rounds you press one button and "
    "get a reward of 1 or 0. Every button gives 1 with a probability of its own, which never changes and which you do "
    "not know.",
    "A": "You choose advertisements for a website. In each of {rounds} rounds a visitor comes, you advertise one of "
    "{k} goods, and you get a reward of 1 if that is clicked, else 0. Every advertisement is clicked with a "
    "probability of its own, which never changes and which you do not know.",
}
NAMES = {
    "B": ("blue", "green", "red", "yellow", "purple", "white", "black", "brown"),
    "A": ("bread", "books", "music", "rice", "milk", "cars", "games", "flowers"),
}
AIM = "Your aim is the highest total reward over all rounds."
FRAMINGS = {
    "N": AIM,
    "S": f"{AIM} For that you have to balance trying all options with choosing the one that has done best so far.",
}
REASONINGS = {
    "N": "Write the answer alone.",
    "C": "First think step by step, then answer.",
    "R": "First think step by step, then answer.",
}
REMINDER = "Think step by step first, and then answer between <Answer> and </Answer>."
CHOICE = "Answer with the name of one option, as in <Answer>NAME</Answer>."
DISTRIBUTION = "Answer with a probability for each option, as in <Answer>NAME:0.6, NAME:0.4</Answer>."
REQUEST = "Which option do you choose?"
OPTIONS, PLAYED, NEVER = "Options: ", "Rounds played: ", "never chosen"
CODE = re.compile(r"([BA])([NS])([RS])([NCR])([01D])(c?)")
MOST_ARMS = 8


class Design(NamedTuple):
    scenario: str
    framing: str
    history: str
    reasoning: str
    answer: str
    calibrated: str

    @property
    def code(self) -> str:
        return "".join(self)

    @property
    def temperature(self) -> float:
        return 1.0 if self.answer == "1" else 0.0

    @property
    def scored(self) -> bool:
        """Whether a choice is asked for at once, so that a local model's scores of the names are enough."""
        return self.reasoning == "N" and self.answer != "D"


def design_of(code: str) -> Design:
    """The design that a code stands for.

    Raises:
        ValueError: naming the code and what is legal.
    """
    found = CODE.fullmatch(code)
    legal = "it must be five letters of [BA][NS][RS][NCR][01D], such as BNRN0"
    if not found:
        raise ValueError(f"design {code!r} is not legal: {legal}, and c behind them for calibrated scores")
    design = Design(*found.groups())
    if design.calibrated and not design.scored:
        raise ValueError(f"design {code!r} is not legal: only designs of [BA][NS][RS]N[01] can be calibrated")
    return design


def instructions(design: Design, k: int, rounds: int) -> str:
    """The system message: the same in all games."""
    told = [STORIES[design.scenario].format(k=k, rounds=rounds), FRAMINGS[design.framing]]
    told += [DISTRIBUTION if design.answer == "D" else CHOICE, REASONINGS[design.reasoning]]
    return " ".join(told)


def situation(design: Design, names: Sequence[str], arms: Sequence[int], rewards: Sequence[float]) -> str:
    """The user message: options in the order of the arms, what was seen so far, and the request."""
    lines = [OPTIONS + ", ".join(names), f"{PLAYED}{len(arms)}"]
    if design.history == "R":
        lines += [f"{names[arm]}: {reward:.0f}" for arm, reward in zip(arms, rewards)]
    elif arms:
        for arm, name in enumerate(names):
            paid = [reward for pulled, reward in zip(arms, rewards) if pulled == arm]
            # Two digits tell the sum of up to 99 rewards.
            digits = 2 if len(paid) < 100 else 4
            times = f"{len(paid)} time{'s' * (len(paid) != 1)}"
            lines.append(f"{name}: " + (f"{times}, mean {sum(paid) / len(paid):.{digits}f}" if paid else NEVER))
    lines.append(REMINDER if design.reasoning == "R" else REQUEST)
    return "\n".join(lines)


def read_situation(message: str) -> tuple[list[str], list[int], list[int]]:
    """Names, pulls and wins of the options, from a user message alone: what scripted players go by."""
    first, _, *lines, _ = message.splitlines()
    names = first.removeprefix(OPTIONS).split(", ")
    pulls, wins = [0] * len(names), [0] * len(names)
    for line in lines:
        name, seen = line.split(": ")
        arm = names.index(name)
        summary = re.fullmatch(r"(\d+) times?, mean ([\d.]+)", seen)
        if summary:
            pulls[arm], wins[arm] = int(summary[1]), round(int(summary[1]) * float(summary[2]))
        elif seen != NEVER:
            pulls[arm], wins[arm] = pulls[arm] + 1, wins[arm] + int(seen)
    return names, pulls, wins


def read_choice(text: str, names: Sequence[str]) -> int | None:
    """The option in the first <Answer> that holds one, or None."""
    for answer in _answers(text):
        found = [(match.start(), i) for i, name in enumerate(names) if (match := _word(name).search(answer))]
        if found:
            return min(found)[1]
    return None


def read_distribution(text: str, names: Sequence[str]) -> list[float] | None:
    """Probabilities of the options in the first <Answer> that holds any, clipped at 0 and scaled to sum 1, or None."""
    for answer in _answers(text):
        weights = [0.0] * len(names)
        for i, name in enumerate(names):
            found = re.search(_word(name).pattern + r"\W*?:\s*(-?\d*\.?\d+)", answer, re.IGNORECASE)
            weights[i] = max(float(found[1]), 0.0) if found else 0.0
        if sum(weights) > 0:
            return [weight / sum(weights) for weight in weights]
    return None


def fingerprint(design: Design) -> int:
    """A number that changes with any word of a design's prompts."""
    names, seen = NAMES[design.scenario][:5], ([0, 1, 0], [1, 0, 0])
    return zlib.crc32((instructions(design, 5, 20) + "\n" + situation(design, names, *seen)).encode())


def _answers(text: str) -> list[str]:
    return re.findall(r"<answer>(.*?)(?:</answer>|\Z)", text, re.IGNORECASE | re.DOTALL)


def _word(name: str) -> re.Pattern[str]:
    return re.compile(rf"\b{re.escape(name)}\b", re.IGNORECASE)
