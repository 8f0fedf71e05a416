import dataclasses
import json

import pytest
import torch

from mesocosm.cli import main
from mesocosm.studies.fact_recall_downscaling import STUDY, Config, trivia

PLACES = {"river": "Thames", "tower": "The Eiffel Tower", "lake": "Loch Ness", "hill": "Arthur's Seat", "isle": "Skye"}
PLACES |= {"bridge": "Forth Bridge", "port": "Leith"}


def row(thing, answer, page):
    names = {"Value": answer, "Aliases": [answer, f"{thing} {answer}"], "NormalizedAliases": [f"old {thing}"]}
    return {"Question": f"Which {thing}?", "Answer": names, "EntityPages": [{"Filename": page, "Title": thing}]}


@pytest.fixture
def folder(tmp_path):
    """Questions and their pages, of which that on the lake does not name it, and that on the hill is missing."""
    rows = [row(thing, answer, f"{thing}.txt") for thing, answer in PLACES.items()]
    (tmp_path / "questions.json").write_text(json.dumps({"Data": rows, "Version": 1.0}))
    (tmp_path / "pages").mkdir()
    for thing, answer in PLACES.items():
        named = "a lake" if thing == "lake" else answer.upper()
        text = (
            " ".join(f"before{i}" for i in range(80)) + f"\n\nof {named}, " + " ".join(f"after{i}" for i in range(80))
        )
        (tmp_path / "pages" / f"{thing}.txt").write_text(text)
    (tmp_path / "pages" / "hill.txt").unlink()
    return tmp_path


def read(folder, count=100, evidence=False):
    return trivia.read(str(folder / "questions.json"), str(folder / "pages") if evidence else None, count)


class Answers:
    """Says what it knows of the thing in the last question, or with a context the two words that follow `of`."""

    def __init__(self, known):
        self.known, self.seen = known, []

    def generate(self, prompts, max_tokens, *, stop):
        assert stop == ["\n"]
        self.seen += prompts
        return [self.answer(prompt.split("\n\n")[-1]) for prompt in prompts]

    def answer(self, asked):
        assert asked.endswith("?\nAnswer:")
        if asked.startswith("Context: "):
            return " ".join(asked.split(" of ")[1].split()[:2])
        return self.known.get(asked.split("Which ")[1].split("?")[0], "no idea")


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (" The Eiffel Tower.", "eiffel tower"),
        ("a man, an ant & the sea", "man ant sea"),
        ("Arthur’s_Seat", "arthur s seat"),
        ("U.S.A.", "u s"),  # A letter by itself is an article to TriviaQA too.
        ("«Theatre»  ", "«theatre»"),
        ("!?", ""),
    ],
)
def test_answers_are_compared_as_triviaqa_does(said, meant):
    assert trivia.normalised(said) == meant


def test_answers_count_by_any_of_their_names(folder):
    questions = read(folder)
    assert [one.question for one in questions] == [f"Which {thing}?" for thing in PLACES]
    assert questions[1].accepted == {"eiffel tower", "tower eiffel tower", "old tower"}
    model = Answers({"isle": " skye!", "bridge": "The Old Bridge", "port": "Leith, I think"})
    assert trivia.right(model, questions, open_book=False).tolist() == [1, 1, 0]
    shown = model.seen[0].split("\n\n")
    assert shown[:2] == ["Question: Which river?\nAnswer: Thames", "Question: Which tower?\nAnswer: The Eiffel Tower"]
    assert len(shown) == trivia.SHOTS + 1
    assert trivia.right(Answers(PLACES), questions, open_book=False).dtype == torch.float64
    assert len(read(folder, count=2)) == trivia.SHOTS + 2


def test_open_book_has_the_words_around_the_answer(folder):
    questions = read(folder, evidence=True)
    assert [one.answer for one in questions] == ["Thames", "The Eiffel Tower", "Skye", "Forth Bridge", "Leith"]
    before, after = questions[3].passage.split("FORTH BRIDGE")
    assert before.split() == [*(f"before{i}" for i in range(32, 80)), "of"]
    assert after.split() == [",", *(f"after{i}" for i in range(49))]
    model = Answers({})
    assert trivia.right(model, questions, open_book=True).tolist() == [0]
    assert model.seen[0].count("Context: ") == trivia.SHOTS + 1
    assert trivia.right(model, questions, open_book=False).tolist() == [0]
    assert "Context: " not in model.seen[1]


def test_a_name_inside_a_word_is_no_evidence(tmp_path):
    (tmp_path / "page.txt").write_text("Leithen and leith (-walk)")
    page = [{"Filename": "page.txt"}]
    assert trivia.told({"Leith"}, str(tmp_path), page) == "Leithen and leith (-walk)"
    assert trivia.told({"Lei"}, str(tmp_path), page) == ""
    assert trivia.told({"-walk!", ""}, str(tmp_path), page) == ""
    assert trivia.told({"(-walk)", ""}, str(tmp_path), page) == "Leithen and leith (-walk)"


def test_what_is_not_triviaqa_is_refused_before_any_work(folder, capsys):
    pytest.importorskip("transformers")
    (folder / "other.json").write_text('{"data": []}')
    (folder / "few.json").write_text(json.dumps({"Data": [row("river", "Thames", "river.txt")]}))
    out = folder / "run"
    for name, message in {
        "other.json": "it must be a file of TriviaQA with Data, Question and Answer",
        "few.json": "it must hold more than 4 questions",
        "none.json": "No such file",
    }.items():
        words = ["--preset", "smoke", "--language-model", "some/model", "--triviaqa", str(folder / name)]
        assert main(["run", "fact-recall-downscaling", *words, "--out", str(out)]) == 2
        told = capsys.readouterr().err
        assert message in told
        assert name in told
        assert not out.exists()
    with pytest.raises(ValueError, match=r"evidence=.* is not legal: it must be the folder of TriviaQA's pages"):
        trivia.read(str(folder / "questions.json"), str(folder / "nowhere"), 1)
    with pytest.raises(ValueError, match="evidence=pages is not legal without triviaqa"):
        Config(evidence="pages")


def test_questions_of_triviaqa_are_priced(folder):
    plain = Config(language_model=("my/model-135m",))
    closed = dataclasses.replace(plain, triviaqa="questions.json")
    both = dataclasses.replace(closed, evidence="pages")
    prices = [sum(STUDY.estimate(config).values()) for config in (plain, closed, both)]
    assert prices == sorted(prices)
    assert len(set(prices)) == 3
