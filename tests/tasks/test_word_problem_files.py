import json
import re
from pathlib import Path

import pytest

from mesocosm.tasks.word_problem_files import final_number, overlaps, read_gsm8k, read_svamp

DATA = Path(__file__).parents[2].parent / "shared" / "data"
GSM8K, SVAMP = DATA / "gsm8k", DATA / "svamp" / "SVAMP.json"


@pytest.mark.skipif(not GSM8K.exists(), reason=f"the files of GSM8K are not in {GSM8K}")
@pytest.mark.parametrize(("split", "size"), [("train", 7473), ("test", 1319)])
def test_no_row_of_gsm8k_is_lost(split, size):
    problems = read_gsm8k(GSM8K / f"{split}.jsonl")
    rows = [json.loads(line) for line in (GSM8K / f"{split}.jsonl").read_text().splitlines()]
    assert len(problems) == len(rows) == size
    agree = 0
    for problem, row in zip(problems, rows):
        assert problem.question == row["question"] and problem.solution == row["answer"]
        assert f"{problem.answer:g}" == f"{float(row['answer'].splitlines()[-1][5:].replace(',', '')):g}"
        worked = re.findall(r"<<[^<>]*=([-\d.]+)>>", row["answer"])
        agree += bool(worked) and float(worked[-1]) == problem.answer
    assert agree / size > 0.9  # The last calculation of most solutions is the answer.


@pytest.mark.skipif(not SVAMP.exists(), reason=f"the file of SVAMP is not in {SVAMP}")
def test_every_equation_of_svamp_gives_its_answer_in_the_sandbox():
    pytest.importorskip("pydantic_monty", reason="pydantic-monty runs the programs")
    from mesocosm.sandbox import execute_all

    problems = read_svamp(SVAMP)
    rows = json.loads(SVAMP.read_text())
    assert len(problems) == len(rows) == 1000
    outcomes = execute_all([f"result = {problem.solution}" for problem in problems])
    wrong = [row["ID"] for row, p, o in zip(rows, problems, outcomes) if o.value != pytest.approx(p.answer)]
    assert wrong == ["chal-680"]  # An error of the file: (4 - 2) + 3 is not 1.
    for row, problem in zip(rows, problems):
        assert problem.question.startswith(row["Body"].strip()) and problem.question.endswith(row["Question"].strip())
    assert problems[1].question == (
        "Dan had $ 3 left with him after he bought a candy bar. If he had $ 4 at the start, "
        "How much did the candy bar cost?"
    )


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("He has 3 + 4 = <<3+4=7>>7 eggs.\n#### 1,080", 1080),
        ("#### -5", -5),
        ("#### $2,520,000.50 and 3 more", 2520000.5),
        ("so it is 48-24", 24),
        ("so it is 48 - -24", -24),
        ("The answer is 12.", 12),
        ("It costs $1,234.5, or less", 1234.5),
        ("-$3", -3),
        ("1,2", 2),
        ("12,3456", 3456),
        ("3.25 or .5", 0.5),
        ("7 apples, 100%", 100),
        ("none", None),
        ("5 eggs #### none", None),
        ("", None),
    ],
)
def test_numbers_are_found_in_answers(text, number):
    assert final_number(text) == number


@pytest.mark.parametrize(
    "line",
    ['{"question": "Q", "answer": "7"}', '{"question": "", "answer": "#### 7"}', '{"question": "Q"}', "[]", "{", "3"],
)
def test_a_damaged_line_is_named(line, tmp_path):
    path = tmp_path / "train.jsonl"
    good = json.dumps({"question": "Q", "answer": "A\n#### 7"})
    path.write_text(f"{good}\n{line}\n")
    with pytest.raises(ValueError, match=r"train.jsonl' is not legal: line 2 is no problem of GSM8K"):
        read_gsm8k(path)


def test_a_row_ends_at_a_line_feed_alone(tmp_path):
    question = "One\u2028two\x85three?"
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps({"question": question, "answer": "#### 7"}, ensure_ascii=False) + "\n")
    assert read_gsm8k(path) == [(question, 7.0, "#### 7")]


@pytest.mark.parametrize("change", [{"Answer": "many"}, {"Body": None}, {"Answer": None}])
def test_a_damaged_row_is_named(change, tmp_path):
    path = tmp_path / "SVAMP.json"
    good = {"Body": "Dan has 3 eggs.", "Question": "How many?", "Answer": 3.0, "Equation": "3.0"}
    path.write_text(json.dumps([good]))
    assert read_svamp(path) == [("Dan has 3 eggs. How many?", 3.0, "3.0")]
    path.write_text(json.dumps([good, good | change]))
    with pytest.raises(ValueError, match=r"SVAMP.json' is not legal: row 1 is no problem of SVAMP"):
        read_svamp(path)


@pytest.mark.parametrize("read", [read_gsm8k, read_svamp])
def test_a_missing_file_is_named(read, tmp_path):
    with pytest.raises(ValueError, match=r"nowhere' is not legal: it must be a file that can be read"):
        read(tmp_path / "nowhere")


def test_overlaps_are_runs_of_words():
    texts = ["Ada buys 12 red apples today.", "Ada BUYS 7, red Apples!", "red apples Ada buys", "apples", ""]
    others = ["yesterday ada buys red apples", "Ben sells"]
    assert overlaps(texts, others, 4) == [True, True, False, False, False]
    assert overlaps(texts, others, 2) == [True, True, True, False, False]
    assert overlaps(texts, others, 1) == [True, True, True, True, False]
    assert overlaps(texts, [], 1) == [False] * 5
    with pytest.raises(ValueError, match="words=0 is not legal"):
        overlaps(texts, others, 0)


@pytest.mark.skipif(not GSM8K.exists(), reason=f"the files of GSM8K are not in {GSM8K}")
def test_overlaps_of_gsm8k_agree_with_a_search_in_the_text():
    train, test = ([p.question for p in read_gsm8k(GSM8K / f"{split}.jsonl")] for split in ("train", "test"))
    found = overlaps(test, train, 8)
    plain = [f" {' '.join(re.sub(r'[0-9_]|[^a-z]', ' ', text.lower()).split())} " for text in (*test, *train)]
    corpus = "|".join(plain[len(test) :])
    for text, overlap in zip(plain[:60], found[:60]):
        words = text.split()
        runs = (" ".join(words[i : i + 8]) for i in range(len(words) - 7))
        assert overlap == any(f" {run} " in corpus for run in runs)
    assert 0 < sum(found) < len(test)
