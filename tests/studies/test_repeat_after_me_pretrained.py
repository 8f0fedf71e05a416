import re
import types

import pandas
import pytest
import torch

from mesocosm import tasks
from mesocosm.lab.claims import judge
from mesocosm.lab.cost import price
from mesocosm.lab.lab import Lab
from mesocosm.studies import repeat_after_me_pretrained as study
from mesocosm.studies.repeat_after_me_pretrained import STUDY, Config, evaluation
from mesocosm.studies.repeat_after_me_pretrained.rules import ATTENTION, STATE_SPACE


class Reader:
    """Stands for a language model of words that looks numbers up and copies, at most `memory` words back."""

    def __init__(self, memory=10**6):
        self.memory = memory
        self.tokenizer = types.SimpleNamespace(decode=self.decode)
        self.words = []

    def encode(self, text):
        for word in text.split():
            if word not in self.words:
                self.words.append(word)
        return [self.words.index(word) for word in text.split()]

    def decode(self, tokens):
        return " ".join(self.words[int(token)] for token in tokens)

    def log_probabilities(self, texts):
        return [torch.full((len(self.encode(text)) - 1,), -1.0) for text in texts]

    def generate(self, prompts, max_tokens, *, stop):
        return [self.answer(prompt, stop[0]) for prompt in prompts]

    def answer(self, prompt, stop):
        prompt = "\n" + prompt
        seen, asked = (prompt[: prompt.rindex(stop) + len(stop)], prompt[prompt.rindex(stop) + len(stop) :])
        place = seen.find("\n" + asked)
        if place < 0 or len(prompt[place:].split()) > self.memory:
            return " 0"
        start = place + 1 + len(asked)
        return seen[start : seen.index(stop, start)]


@pytest.fixture
def models(monkeypatch):
    known = {"perfect": Reader(), "short": Reader(memory=40)}
    monkeypatch.setattr(evaluation, "_model", known.__getitem__)
    return known


def test_numbers_are_looked_up_where_their_line_is(models):
    found = evaluation.look_up("perfect", tasks.PhoneBook(entries=6), 20)
    assert found["exact"].tolist() == [1] * 20
    assert found["exact without the line"].tolist() == [0] * 20
    assert 0 < evaluation.look_up("short", tasks.PhoneBook(entries=20), 40)["exact"].mean() < 1


def test_prompts_are_those_of_the_paper(models, monkeypatch):
    """A book, two examples that stand in it, and the name of a third entry up to its colon."""
    asked = []
    monkeypatch.setattr(models["perfect"], "generate", lambda prompts, *_, **__: asked.append(prompts) or prompts)
    evaluation.look_up("perfect", tasks.PhoneBook(entries=4), 3)
    line = r"[A-Z]\w+ [A-Z]\w+: [6-9]\d{9}\n"
    for prompt, without in zip(*asked):
        assert re.fullmatch(rf"({line}){{4}}\n({line}){{2}}\n[A-Z]\w+ [A-Z]\w+:", prompt)
        name = prompt.rpartition("\n")[2]
        removed = next(part for part in prompt.splitlines(keepends=True) if part.startswith(name))
        assert without == prompt.replace(removed, "")
        assert without.count(name) == 1


def test_passages_are_copied_as_they_stand_and_shuffled(models):
    found = evaluation.copy("perfect", None, 12, 10)
    assert found["exact"].tolist() == found["exact in random order"].tolist() == [1] * 10
    texts = evaluation.passages(models["perfect"], None, 12, 10)
    assert len(set(texts)) == 10
    assert all(len(text.split()) == 12 for text in texts)
    assert found["loss"].tolist() == pytest.approx([11 / len(text.encode()) for text in texts])
    assert evaluation.copy("short", None, 30, 10)["exact"].sum() == 0


def made_up(lead=0.5, worse=-0.01, absent=0.0, kinds=(ATTENTION, STATE_SPACE)):
    rows = []
    for seed in range(60):
        for kind in kinds:
            right = float(seed % 10 < 5 + 10 * lead * (kind == ATTENTION) / 2)
            row = {"seed": seed, "kind": kind, "model": kind, "step": 0}
            for entries in (10, 80):
                book = {**row, "cell": "phone book", "entries": entries}
                rows.append({**book, "metric": "exact", "value": 1.0 if entries == 10 else right})
                rows.append({**book, "metric": "exact without the line", "value": float(seed % 100 < 100 * absent)})
            text = {**row, "cell": "text", "length": 20}
            rows.append({**text, "metric": "exact", "value": right})
            rows.append({**text, "metric": "loss", "value": 1 + worse * (kind == STATE_SPACE) + seed / 100})
    return pandas.DataFrame(rows)


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "supported"),
        ({"lead": -0.5}, "not supported"),
        ({"worse": 0.5}, "not supported"),
        ({"absent": 0.2}, "inconclusive"),
        ({"kinds": (ATTENTION,)}, "inconclusive"),
    ],
)
def test_the_rule(changes, verdict):
    assert judge(STUDY.claims[0], made_up(**changes), {}).verdict == verdict


def test_a_run_asks_each_model_everything_once(models, tmp_path, monkeypatch):
    config = Config(seeds=3, attention=("perfect",), state_space=("short",), books=(5, 71), lengths=(4, 30), digits=4)
    assert price(Lab(None), list(study.plan(config)), timed=False) == []
    (tmp_path / "checkpoints").mkdir()
    lab = Lab(tmp_path)
    study.run(config, lab)
    records = lab.records()
    assert set(records["model"]) == {"perfect", "short"}
    large = records[(records["entries"] == 71) & (records["metric"] == "exact")].groupby("kind")["value"].mean()
    assert large[ATTENTION] == 1
    drawings = list(STUDY.figures(records))
    assert len(drawings) == 1
    monkeypatch.setattr(evaluation, "_model", None)
    again = Lab(tmp_path)
    study.run(config, again)
    assert again.records().equals(records)


def test_models_come_in_pairs():
    with pytest.raises(ValueError, match=r"state_space=\('a', 'b'\) is not legal: it must name as many models"):
        Config(state_space=("a", "b"))
