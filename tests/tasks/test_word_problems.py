import re

import pytest
import torch
from scipy import stats

from mesocosm.seeding import generator
from mesocosm.tasks import WordProblems
from mesocosm.tasks.word_problems import LENGTH

NUMBER = r"(\d+)"


def _documents(task, size, seed=0):
    """Batch, questions and the teacher's programs."""
    batch = task.sample(size, generator(seed))
    rows = torch.cat([batch.inputs, batch.targets[:, -1:]], dim=1)
    texts = [task.text(row).split("?\n") for row in rows]
    return batch, [question for question, _ in texts], [program for _, program in texts]


def _read(question: str) -> int:
    """The answer, from the words alone: an independent solver."""
    if "at first" in question:
        verb, amount = re.search(rf"(finds|gives) {NUMBER}", question).groups()
        now = int(re.search(rf"Now \w+ has {NUMBER}", question)[1])
        return now - int(amount) if verb == "finds" else now + int(amount)
    owned = 0
    for sentence in question.split(". "):
        number = int(found[1]) if (found := re.search(NUMBER, sentence)) else 0
        if "years old" in sentence:
            continue
        if re.search(r" (buys|finds) |has \d+ more", sentence):
            owned += number
        elif re.search(r" (gives|loses) |has \d+ fewer", sentence):
            owned -= number
        elif "times as many" in sentence:
            owned *= number
        elif " has " in sentence:
            owned = number
        if "How many" not in sentence:
            assert owned > 0
    return owned


def test_answers_are_those_of_the_words():
    batch, questions, _ = _documents(WordProblems(), 3000)
    assert [_read(question) for question in questions] == batch.answer.tolist()
    assert (batch.answer > 0).all()


def test_an_example_reads_well():
    _, questions, programs = _documents(WordProblems(errors=(0.0, 0.0, 0.0), families=(2,), irrelevant=0.0), 1)
    assert re.fullmatch(
        r"(\w+) (finds|gives) \d+ (\w+)\. Now \1 has \d+ \3\. How many \3 did \1 have at first", questions[0]
    )
    assert re.fullmatch(r"a = \d+\nb = \d+\nresult = b [+-] a", programs[0])


def test_the_sandbox_gives_the_stated_results():
    pytest.importorskip("pydantic_monty", reason="pydantic-monty runs the programs")
    from mesocosm.sandbox import execute_all

    batch, _, programs = _documents(WordProblems(), 2000, seed=1)
    outcomes = execute_all(programs, workers=2)
    assert {outcome.status for outcome in outcomes} == {"ok"}
    assert [outcome.value for outcome in outcomes] == batch.teacher.tolist()


def test_a_teacher_without_errors_is_right():
    batch = WordProblems(errors=(0.0, 0.0, 0.0)).sample(1000, generator(2))
    assert torch.equal(batch.answer, batch.teacher)


def test_the_teacher_errs_at_its_rates():
    """Two operators differ in their result but for chances such as 2 + 2 = 2 * 2, so errors show as wrong answers."""
    rates = (0.1, 0.2, 0.6)
    task = WordProblems(errors=rates)
    batch = task.sample(12_000, generator(3))
    wrong = batch.answer != batch.teacher
    for family, rate in enumerate(rates):
        here = batch.family == family
        assert abs(float(wrong[here].float().mean()) - rate) < 4 * (rate * (1 - rate) / int(here.sum())) ** 0.5 + 0.002
    assert task.teacher_accuracy() == pytest.approx(0.7)
    assert WordProblems().teacher_accuracy() == pytest.approx(0.78)
    assert WordProblems(families=(2, 2, 0)).teacher_accuracy() == pytest.approx((0.4 + 0.4 + 0.97) / 3)


def test_an_error_on_an_unknown_start_takes_the_operator_that_the_verb_suggests():
    _, questions, programs = _documents(WordProblems(errors=(0.0, 0.0, 1.0), families=(2,)), 300)
    for question, program in zip(questions, programs):
        assert program[-3] == ("+" if "finds" in question else "-")


def test_an_error_elsewhere_replaces_exactly_one_operator():
    """The same draw with and without errors: the first problem's question is the same, the program one operator off."""
    for family in (0, 1):
        for seed in range(200):
            (question,), (right,) = _documents(WordProblems(errors=(0.0,) * 3, families=(family,)), 1, seed)[1:]
            (same,), (wrong,) = _documents(WordProblems(errors=(1.0,) * 3, families=(family,)), 1, seed)[1:]
            assert question == same and len(right) == len(wrong)
            assert [a in "+-*" and b in "+-*" for a, b in zip(right, wrong) if a != b] == [True]


def test_families_and_ages_come_at_their_rates():
    batch, questions, _ = _documents(WordProblems(), 6000, seed=4)
    assert stats.chisquare(batch.family.bincount(minlength=3)).pvalue > 1e-3
    ages = sum("years old" in question for question in questions)
    assert stats.binomtest(ages, 6000, 1 / 3).pvalue > 1e-3
    assert all(question.split(". ")[1].endswith("years old") for question in questions if "years old" in question)
    assert not any("years old" in q for q in _documents(WordProblems(irrelevant=0.0), 100)[1])


def test_weights_cover_the_program_and_its_end_alone():
    task = WordProblems()
    batch, questions, programs = _documents(task, 200, seed=5)
    for row in range(200):
        learned = batch.targets[row][batch.weights[row] == 1]
        assert task.text(learned) == programs[row] and task.tokens[learned[-1]] == "<end>"
        assert task.text(batch.inputs[row][: batch.prompt[row]]) == questions[row] + "?\n"
        assert batch.weights[row, : batch.prompt[row] - 1].sum() == 0


def test_batch_is_what_the_task_declares():
    task = WordProblems()
    batch = task.sample(7, generator(0))
    assert batch._fields == tuple(task.fields)
    assert batch.inputs.shape == batch.targets.shape == batch.weights.shape == (7, *task.input_shape)
    assert all(field.shape == (7,) for field in batch[3:])
    assert torch.equal(batch.inputs[:, 1:], batch.targets[:, :-1])
    assert task.output_shape == (*task.input_shape, len(task.tokens)) and len(set(task.tokens)) == len(task.tokens)
    assert task.sample(0, generator(0)).inputs.shape == (0, *task.input_shape)
    again = task.sample(7, generator(0))
    assert all(torch.equal(one, other) for one, other in zip(batch, again))


def test_the_longest_document_fills_the_row():
    batch = WordProblems(irrelevant=1.0, families=(1,)).sample(3000, generator(6))
    assert int(batch.prompt.max() + batch.weights.sum(1).max()) >= LENGTH
    assert (batch.weights.sum(1) + batch.prompt).max() == LENGTH


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"errors": (0.1, 0.1)}, r"errors=\(0.1, 0.1\) is not legal: it must hold 3 rates, one a family"),
        ({"errors": (0.1, 0.1, 1.2)}, "errors=.* is not legal"),
        ({"irrelevant": 2.0}, "irrelevant=2.0 is not legal"),
        ({"families": ()}, "families=.* is not legal"),
        ({"families": (3,)}, "families=.* is not legal"),
    ],
)
def test_illegal_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        WordProblems(**settings)
