import copy
import dataclasses
import itertools
import json
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas
import pytest
import torch
from torch import nn

from mesocosm.cli import main
from mesocosm.lab.claims import judge
from mesocosm.lab.lab import Lab
from mesocosm.lab.style import style
from mesocosm.models import LanguageModel
from mesocosm.studies.fact_recall_downscaling import (
    PRESETS,
    STUDY,
    Config,
    ask_language_model,
    cells,
    evaluation,
    figures,
    levels,
    plan,
    questions,
    rules,
    run,
)  # fmt: skip
from mesocosm.studies.fact_recall_downscaling.lists import CAPITALS, INVENTED, SYMBOLS

TINY = Config(language_model=None, seeds=2, widths=(4, 8), facts=(4, 64), steps=4, batch_size=4)
LEVELS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7)


def made_up(
    recall=(1, 0.9, 0.7, 0.4, 0.2, 0.1), retrieval=(1, 1, 1, 0.95, 0.8, 0.6), override=(1, 1, 1, 1, 1, 0.9),
    function=(0.8, 0.8, 0.8, 0.78, 0.7, 0.5), dense_function=0.8, shuffled=0.5, invented=0.0, masked=0.0,
    counterfactual=0.0, context=16, known=64, few_context=16, few_known=16, seeds=3,
):  # fmt: skip
    """Records as the study leaves them: accuracies by sparsity, and the widths from which networks have an ability."""
    rows = []

    def ask(cell, shares, dense=1.0, count=60, metric="right", random=None):
        for method, sparsity, share in [
            ("dense", 0.0, dense), *(("wanda", s, share) for s, share in zip(LEVELS, shares)),
            ("magnitude", 0.5, 0.1), ("random", 0.5, shares[3] if random is None else random),
        ]:  # fmt: skip
            for seed in range(count):
                value = float(seed < round(share * count))
                rows.append((cell, seed, 0, metric, value, method, sparsity, np.nan, np.nan))

    ask("recall", recall, random=masked)
    ask("recall", [counterfactual] * 6, 0.0, metric="other")
    ask("retrieval", retrieval, random=0.5 + masked / 2)
    ask("override", override)
    ask("override", [0] * 6, 0.0, metric="other")
    ask("invented", [invented] * 6, 0.0, count=30)
    for cell, shares, dense in (
        ("function", function, dense_function), ("function, shuffled labels", [shuffled] * 6, shuffled),
    ):  # fmt: skip
        for method, sparsity, share in [("dense", 0.0, dense), *(("wanda", *pair) for pair in zip(LEVELS, shares))]:
            for seed in range(24):
                value = share + 0.02 * (-1) ** seed
                rows.append((cell, seed, 0, "right", value, method, sparsity, np.nan, np.nan))
    for facts, thresholds in ((256.0, (few_known, few_context)), (4096.0, (known, context))):
        for width in (16.0, 32.0, 64.0):
            for seed in range(seeds):
                for metric, least in zip(("recall", "in context"), thresholds):
                    for step, value in ((0, 0.0), (9, 0.95 if width >= least else 0.5)):
                        cell = f"trained/facts={facts:g}/width={width:g}"
                        rows.append((cell, seed, step, metric, value, None, np.nan, facts, width))
                rows.append((cell, seed, 9, "parameters", 200.0 * width, None, np.nan, facts, width))
    columns = ["cell", "seed", "step", "metric", "value", "method", "sparsity", "facts", "width"]
    return pandas.DataFrame(rows, columns=columns)


def judged(claim, records):
    return judge(next(c for c in STUDY.claims if c.id == claim), records, {})


@pytest.mark.parametrize("claim", ["C1", "C2", "C3", "C4"])
def test_claims_are_supported_where_the_effect_is_there(claim):
    judgement = judged(claim, made_up())
    assert (judgement.verdict, judgement.control["verdict"]) == ("supported", "absent"), judgement


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        ("C1", {"recall": (1, 1, 1, 1, 1, 1)}),
        ("C1", {"retrieval": (1, 0.9, 0.8, 0.6, 0.5, 0.5)}),
        ("C2", {"override": (1, 1, 0.9, 0.5, 0.3, 0.1)}),
        ("C2", {"recall": (1, 1, 1, 1, 1, 1)}),
        ("C3", {"recall": (1, 1, 1, 1, 1, 1)}),
        ("C3", {"function": (0.6, 0.6, 0.6, 0.6, 0.6, 0.6)}),
        ("C4", {"known": 32, "context": 32}),
        ("C4", {"known": 16, "context": 32}),
    ],
)
def test_claims_are_not_supported_where_the_effect_is_absent(claim, changes):
    assert judged(claim, made_up(**changes)).verdict == "not supported"


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        ("C1", {"masked": 0.9}),
        ("C1", {"invented": 0.5}),
        ("C2", {"counterfactual": 0.3}),
        ("C3", {"shuffled": 0.7}),
        ("C4", {"few_known": 64}),
        ("C4", {"few_known": 32}),
    ],
)
def test_a_control_that_fires_makes_its_claim_inconclusive(claim, changes):
    judgement = judged(claim, made_up(**changes))
    assert (judgement.verdict, judgement.control["verdict"]) == ("inconclusive", "present")


@pytest.mark.parametrize(
    ("claim", "records", "why"),
    [
        ("C3", made_up(dense_function=0.5), "the dense model is at chance in function: 0.50"),
        ("C4", made_up(context=128), "no width up to 64 reads the context in every seed"),
        ("C1", made_up()[lambda r: r["sparsity"] != 0.5], "there are no answers at sparsity 0.5"),
        ("C2", made_up()[lambda r: r["method"] != "dense"], "needs answers of the dense model"),
        ("C1", made_up()[lambda r: r["cell"].str.startswith("trained")], "no language model was asked"),
        ("C4", made_up()[lambda r: ~r["cell"].str.startswith("trained")], "there is no network trained"),
    ],
)
def test_too_little_is_inconclusive_with_its_reason(claim, records, why):
    judgement = judged(claim, records)
    assert judgement.verdict == "inconclusive"
    assert why in judgement.note


def test_reading_may_need_more_width_than_few_facts():
    for few_context in (32, 64, 128):
        assert judged("C4", made_up(few_context=few_context)).control["verdict"] == "absent"
    assert judged("C4", made_up(few_known=128)).control["verdict"] == "inconclusive"


def test_a_width_that_recalls_nothing_is_a_lower_bound():
    assert judged("C4", made_up(known=128, context=32)).verdict == "supported"
    assert judged("C4", made_up(known=128, context=64)).verdict == "inconclusive"


def test_tolerated_sparsities_and_kept_shares_are_those_of_the_records():
    records = made_up()
    recall, look_up = rules.Kept(records, "recall"), rules.Kept(records, "retrieval")
    assert recall.tolerated(recall.questions) == pytest.approx(0.2)
    assert look_up.tolerated(look_up.questions) == pytest.approx(0.5)
    assert recall.share(recall.questions) == pytest.approx((0.4 - 1 / 30) / (1 - 1 / 30))
    assert look_up.share(look_up.questions) == pytest.approx((0.95 - 0.5) / 0.5)
    first = rules.lead("share", look_up, recall)
    assert first.low < 0.9 - 0.3793 < first.high


def spell(text, **options):
    """Tokens of a text: words with the space before them, and marks."""
    return [VOCABULARY.setdefault(piece, len(VOCABULARY)) for piece in re.findall(r" ?\w+| ?[^\w\s]|\n", text)]


VOCABULARY: dict[str, int] = {}


class Reader:
    """A made-up language model that answers from the context where that tells, and from memory else."""

    def __init__(self, reads=True, knows=True, last=False):
        self.reads, self.knows, self.last = reads, knows, last

    def encode(self, text):
        return spell(text)

    def score(self, prompts, candidates):
        words = {number: piece.strip() for piece, number in VOCABULARY.items()}
        names = [words[token] for (token,) in candidates]
        scores = torch.zeros(len(prompts), len(names))
        for row, prompt in zip(scores, prompts):
            key = prompt.removesuffix(" is").removesuffix(":").split()[-1]
            told = re.findall(rf"{key}(?: is|:) (\w+)", prompt[:-2])
            if self.last:
                told = re.findall(r": (\w+)", prompt)
            stored = (CAPITALS | SYMBOLS).get(key)
            if self.reads and told:
                row[names.index(told[-1])] = 1
            elif self.knows and stored:
                row[names.index(stored)] = 1
        return scores


def answered(model, asked):
    said = questions.answer(model, asked)
    return (said == asked.right).float().mean().item(), (said == asked.other).float().mean().item()


@pytest.mark.parametrize("name", list(questions.LISTS))
def test_a_reader_is_right_in_context_and_a_knower_by_heart(name):
    assert answered(Reader(), questions.recall(name)) == (1, 0)
    assert answered(Reader(), questions.override(name)) == (1, 0)
    assert answered(Reader(reads=False), questions.override(name)) == (0, 1)
    assert answered(Reader(knows=False), questions.override(name)) == (1, 0)
    assert answered(Reader(knows=False), questions.recall(name)) == (pytest.approx(1 / 30), pytest.approx(1 / 30))


def test_pairs_are_looked_up_and_nobody_knows_what_does_not_exist():
    assert answered(Reader(knows=False), questions.retrieval(60)) == (1, 0)
    assert answered(Reader(last=True), questions.retrieval(60)) == (0.5, 0.5)
    assert answered(Reader(), questions.invented())[0] == pytest.approx(1 / 30)
    assert len(set(INVENTED) & set(CAPITALS)) == 0
    asked = questions.retrieval(61)
    assert asked.prompts[:60] == questions.retrieval(60).prompts


def test_lists_have_thirty_different_answers():
    for facts in (CAPITALS, SYMBOLS):
        assert len(facts) == len(set(facts.values())) == 30
    assert len(set(INVENTED)) == 30


@pytest.mark.parametrize("number", range(5))
def test_functions_are_linear_and_shuffling_moves_labels_alone(number):
    from sklearn.svm import LinearSVC

    points, side, shown = questions.function(number, 24, False)
    assert torch.equal(side, shown)
    assert len(points.unique(dim=0)) == 24
    assert 0 <= points.min() <= points.max() <= 9
    assert LinearSVC(C=1e4, max_iter=200_000).fit(points.numpy(), side.numpy()).score(points, side) == 1
    again, same, shuffled = questions.function(number, 24, True)
    assert torch.equal(points, again)
    assert torch.equal(side, same)
    assert not torch.equal(shuffled, side)
    assert sorted(shuffled.tolist()) == sorted(side.tolist())


class Neighbour(nn.Module):
    """Says of a point the label of the nearest point before it."""

    device = torch.device("cpu")

    def forward(self, tokens, use_cache):
        words = {number: piece.strip() for piece, number in VOCABULARY.items()}
        labels = {number: piece for piece, number in VOCABULARY.items() if piece in questions.LABELS}
        logits = torch.zeros(*tokens.shape, len(VOCABULARY))
        for found, row in zip(logits, tokens.tolist()):
            seen = []
            for place in range(len(row)):
                digits = [int(words[token]) for token in row[: place + 1] if words[token].isdigit()][-2:]
                if row[place] in labels:
                    seen.append((digits, row[place]))
                elif seen and len(digits) == 2:
                    nearest = min(seen, key=lambda one: sum((a - b) ** 2 for a, b in zip(one[0], digits)))
                    found[place, nearest[1]] = 1
        return SimpleNamespace(logits=logits)


def test_functions_are_read_at_the_places_of_the_labels():
    spell("".join(questions.LABELS))
    model = LanguageModel(Neighbour(), SimpleNamespace(encode=spell))
    true, shuffled = (questions.learned(model, range(12), 16, kind) for kind in (False, True))
    assert torch.equal(questions.learned(model, [7], 16, False), true[7:8])
    for number, share in enumerate(true.tolist()):
        points, side, _ = questions.function(number, 16 + questions.QUERIES, False)
        distances = torch.cdist(points.float(), points.float())
        nearest = [side[distances[i, :i].argmin()] == side[i] for i in range(16, len(side))]
        assert share == pytest.approx(sum(map(float, nearest)) / questions.QUERIES, abs=2 / questions.QUERIES)
    assert true.mean() > 0.8
    assert shuffled.mean() < 0.7


def test_first_tokens_must_tell_candidates_apart():
    class Letters:
        def encode(self, text):
            return [ord(letter) for letter in text.replace(" ", "")]

    with pytest.raises(ValueError, match="begin with one token"):
        questions.answer(Letters(), questions.recall("capitals"))


@pytest.fixture(scope="module")
def tiny():
    """A random model of transformers that spells words as one token each."""
    transformers = pytest.importorskip("transformers")
    every = [*CAPITALS, *CAPITALS.values(), *SYMBOLS, *SYMBOLS.values(), *INVENTED, *map(str, range(10))]
    prompts = " ".join(prompt for _, prompt in questions.LISTS.values()) + questions.POINT + " ".join(questions.LABELS)
    for word in every:
        spell(f"{word} {word}")
    spell(prompts + "." + "".join(p for p in questions.override("capitals").prompts))
    words = dict(VOCABULARY)

    def encode(text, **options):
        return [words.get(piece, 0) for piece in re.findall(r" ?\w+| ?[^\w\s]|\n", text)]

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=4096, eos_token_id=0,
    )  # fmt: skip
    return LanguageModel(transformers.LlamaForCausalLM(config), SimpleNamespace(encode=encode, eos_token_id=0))


def test_pruning_lasts_as_long_as_its_context(tiny):
    before = {name: weight.clone() for name, weight in tiny.module.state_dict().items()}
    calibration, inside = evaluation.Calibration(tiny, None, 2), {}
    for method in ("wanda", "sparsegpt", "magnitude", "random"):
        with evaluation.pruned(calibration, method, 0.25) as zeros:
            assert zeros == pytest.approx(0.25, abs=0.01)
            inside[method] = {name: weight.clone() for name, weight in tiny.module.state_dict().items()}
        after = tiny.module.state_dict()
        assert all(torch.equal(weight, after[name]) for name, weight in before.items())
        for name in ("lm_head.weight", "model.embed_tokens.weight"):
            assert torch.equal(inside[method][name], before[name])
    name = "model.layers.0.mlp.down_proj.weight"
    masks = [weights[name] == 0 for weights in inside.values()]
    assert all(not torch.equal(first, second) for first, second in itertools.pairwise(masks))
    kept = inside["sparsegpt"][name][~masks[1]]
    assert not torch.equal(kept, before[name][~masks[1]]), "what stays makes up for what goes"
    with evaluation.pruned(calibration, "dense", 0.0) as zeros:
        assert zeros == 0


def test_what_is_weighed_is_not_what_the_loss_is_of(tiny):
    calibration = evaluation.Calibration(tiny, None, 3)
    assert [len(batch[0]) for batch in calibration.batches] == [512] * 3
    assert [len(row) for row in calibration.held_out] == [256]
    train, held_out = (evaluation.text(None, split).block_starts for split in ("train", "valid"))
    assert not set(train.tolist()) & set(held_out.tolist())


def test_all_that_is_asked_of_a_language_model_is_priced():
    assert STUDY.estimate(TINY) == {}
    small, paper = Config(language_model=("my/model-135m",)), PRESETS["paper"]
    found = {name.split(", ")[1]: seconds for name, seconds in STUDY.estimate(small).items()}
    assert set(found) == {"dense", "wanda", "magnitude", "random"}
    assert found["wanda"] == pytest.approx(6 * found["dense"])
    assert found["random"] < found["dense"]
    found = STUDY.estimate(dataclasses.replace(paper, language_model=("my/opt-1.3b", "my/opt-6.7b")))
    assert found["my/opt-1.3b, sparsegpt"] > found["my/opt-1.3b, wanda"]
    for method in ("dense", "wanda", "sparsegpt", "random"):
        assert found[f"my/opt-6.7b, {method}"] == pytest.approx(6.7 / 1.3 * found[f"my/opt-1.3b, {method}"])


def test_too_short_a_text_is_refused(tmp_path):
    (tmp_path / "short.txt").write_text("short")
    config = dataclasses.replace(TINY, language_model=("some/model",), text=str(tmp_path / "short.txt"))
    pytest.importorskip("transformers")
    with pytest.raises(ValueError, match=r"short\.txt"):
        STUDY.check(config)


class Guesser(LanguageModel):
    def generate(self, prompts, max_tokens, *, stop):
        return ["Anything" if prompt.count("Context: ") else "one" for prompt in prompts]


def test_a_language_model_is_asked_judged_and_drawn(tiny, monkeypatch, tmp_path):
    monkeypatch.setattr(evaluation, "load", lambda name: Guesser(tiny.module, tiny.tokenizer))
    answers = [{"Value": value, "Aliases": [], "NormalizedAliases": []} for value in ("one", "one", "anything") * 3]
    rows = [{"Question": "Which?", "Answer": one, "EntityPages": [{"Filename": "page"}]} for one in answers]
    (tmp_path / "questions.json").write_text(json.dumps({"Data": rows}))
    (tmp_path / "page").write_text("anything but one")
    config = dataclasses.replace(
        TINY, language_model=("tiny",), sparsegpt=True, sparsities=(0.3, 0.5), pairs=6, rules=3, examples=4,
        triviaqa=str(tmp_path / "questions.json"), evidence=str(tmp_path), trivia=5,
    )  # fmt: skip
    lab = Lab(tmp_path)
    run(config, lab)
    records = lab.records()
    asked = records[records["method"].notna()]
    assert set(zip(asked["method"], asked["sparsity"])) == set(levels(config))
    counts = asked[(asked["method"] == "dense") & (asked["metric"] == "right")].groupby("cell")["seed"].nunique()
    expected = {"function": 3, "function, shuffled labels": 3, "invented": 30, "override": 60, "recall": 60}
    assert counts.to_dict() == expected | {"retrieval": 6, "trivia": 5, "trivia, open book": 5}
    told = asked[(asked["method"] == "wanda") & (asked["sparsity"] == 0.5)].set_index(["cell", "seed"])["value"]
    assert told["trivia"].tolist() == [1, 0, 1, 1, 0]
    assert told["trivia, open book"].tolist() == [0, 1, 0, 0, 1]
    assert {judge(claim, records, {}).verdict for claim in STUDY.claims} <= {"inconclusive", "not supported"}
    monkeypatch.setattr(evaluation, "measure", lambda *settings: pytest.fail("what is done is done again"))
    again = Lab(tmp_path)
    run(config, again)
    pandas.testing.assert_frame_equal(records, again.records())
    with style():
        drawn = {drawing.name: drawing.caption for drawing in figures(records)}
    assert list(drawn) == ["kept", "override", "widths"]
    assert "TriviaQA, open book 1.00 [" in drawn["kept"]


def of_two_models(**changes):
    """Made-up records of two models, of which the changes hit the second, and one set of trained networks."""
    first, second = made_up(), made_up(**changes)
    asked = first["method"].notna()
    return pandas.concat([first[asked].assign(model="one"), second[asked].assign(model="two/b"), first[~asked]])


def test_claims_must_hold_in_each_of_several_models():
    for claim in ("C1", "C2", "C3", "C4"):
        judgement = judged(claim, of_two_models())
        assert (judgement.verdict, judgement.control["verdict"]) == ("supported", "absent")
    judgement = judged("C2", of_two_models(override=(1, 1, 0.9, 0.5, 0.3, 0.1)))
    assert judgement.verdict == "not supported"
    assert [check["verdict"] for check in judgement.checks] == ["supported", "supported", "not supported", "supported"]
    assert judgement.checks[2]["name"] == "two/b: answers from the context, pruned over dense"
    assert judged("C2", of_two_models(counterfactual=0.3)).control["verdict"] == "present"
    assert judged("C3", of_two_models(dense_function=0.5)).verdict == "inconclusive"


def test_several_models_are_asked_drawn_and_compared_by_size(tiny, monkeypatch, tmp_path):
    transformers = pytest.importorskip("transformers")
    config = copy.deepcopy(tiny.module.config)
    config.num_hidden_layers = 1
    models = {"tiny": tiny, "tinier": LanguageModel(transformers.LlamaForCausalLM(config), tiny.tokenizer)}
    monkeypatch.setattr(evaluation, "load", models.__getitem__)
    lab = Lab(None)
    config = dataclasses.replace(
        TINY, language_model=("tiny", "tinier"), sparsities=(0.5,), pairs=4, rules=2, examples=2
    )
    for name in config.language_model:
        ask_language_model(name, config, lab)
    records = lab.records()
    sizes = records[(records["metric"] == "parameters") & (records["method"] == "dense")].set_index("model")["value"]
    assert sizes["tiny"] == sum(weight.numel() for weight in tiny.module.parameters()) > sizes["tinier"]
    with style():
        drawn = {drawing.name: drawing.caption for drawing in figures(records)}
    assert list(drawn) == ["kept-tinier", "override-tinier", "kept-tiny", "override-tiny", "sizes"]
    assert "of tinier, with" in drawn["kept-tinier"]
    assert drawn["sizes"].index("tinier (") < drawn["sizes"].index("tiny (")


def records_of(config, **lab):
    lab = Lab(None, **lab)
    run(config, lab)
    return lab.records()


def test_made_up_records_are_drawn():
    with style():
        drawings = list(figures(made_up()))
    assert [drawing.name for drawing in drawings] == ["kept", "override", "widths"]
    assert "recall 0.38 [" in drawings[0].caption


@pytest.mark.slow
def test_the_first_seeds_of_a_larger_run_are_those_of_a_smaller_one():
    small, large = records_of(TINY), records_of(dataclasses.replace(TINY, seeds=3))
    expected = large[large["seed"] < 2].reset_index(drop=True)
    pandas.testing.assert_frame_equal(small, expected, rtol=1e-4, atol=1e-5)


class Stranger(nn.Module):
    """A user's own network of tokens."""

    def __init__(self, task):
        super().__init__()
        _, d_vocab = task.output_shape
        self.embed = nn.Embedding(d_vocab, 6)
        self.answer = nn.Linear(6, d_vocab)

    def forward(self, tokens):
        return self.answer(self.embed(tokens).cumsum(1))


def test_another_architecture_runs_and_one_seed_is_judged_and_drawn():
    records = records_of(dataclasses.replace(TINY, seeds=1), architecture=Stranger)
    assert {judge(claim, records, {}).verdict for claim in STUDY.claims} <= {"inconclusive", "not supported"}
    sizes = records[records["metric"] == "parameters"]["value"]
    assert set(sizes) == {112 * 6 + 6 * 112 + 112}
    with style():
        assert [drawing.name for drawing in figures(records)] == ["widths"]


def test_a_network_that_knows_or_reads_is_found_out():
    task = next(iter(plan(TINY))).task

    class Knower(nn.Module):
        """Answers by heart."""

        def __init__(self):
            super().__init__()
            self.none = nn.Parameter(torch.zeros(1))
            answers = torch.full((112, 112, 112), 111)
            first, second, relation, thing = task.known.T
            answers[first, second, relation] = thing
            self.register_buffer("answers", answers, persistent=False)

        def forward(self, tokens):
            subjects = tokens.unfold(1, 3, 1)  # the last three tokens at each position
            said = self.answers[subjects[..., 0], subjects[..., 1], subjects[..., 2]]
            return nn.functional.pad(nn.functional.one_hot(said, 112) + self.none, (0, 0, 2, 0))

    from mesocosm.training import Population

    found = evaluation.knowledge(task)(Population(Knower, [0]), 0)
    assert found["recall"].tolist() == [1]
    assert found["in context"].item() < 0.1


def test_cells_are_all_widths_but_the_widest_of_the_control():
    found = list(plan(PRESETS["small"]))
    made = [(cell.settings["facts"], cell.settings["width"]) for cell in found]
    assert made == [(256, 16), (256, 32), (4096, 16), (4096, 32), (4096, 64)]
    assert all(cell.swappable and list(cell.seeds) == [0, 1, 2] for cell in found)
    assert max(PRESETS["small"].facts) == rules.FEWER * min(PRESETS["small"].facts)
    assert [cell.name for cell in cells(PRESETS["small"], [100])] == [cell.name for cell in found]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sparsities": (0.3, 0.2, 0.5)}, "sparsities=.* is not legal: it must rise"),
        ({"sparsities": (0.2, 0.3)}, "sparsities=.* is not legal: 0.5 must be among them"),
        ({"widths": (16, 16)}, "widths=.* is not legal: it must rise"),
        ({"widths": (6, 12)}, "widths=.* is not legal: each must be a multiple of 4"),
        ({"language_model": ("a", "a")}, "language_model=.* is not legal: its models must differ"),
        ({"examples": 5}, "examples=5 is not legal: it must be even"),
        ({"pairs": 0}, "pairs=0 is not legal"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Config(**settings)


def test_a_language_model_that_is_not_there_is_an_error_before_any_work(tmp_path, capsys):
    words = ["--preset", "smoke", "--language-model", "nowhere at all", "--out", str(tmp_path / "run")]
    assert main(["run", "fact-recall-downscaling", *words]) == 2
    assert "name='nowhere at all' is not legal" in capsys.readouterr().err
    assert not list((tmp_path / "run").glob("checkpoints/*"))


def test_importing_the_study_imports_no_heavy_library():
    heavy = "{'torch', 'pandas', 'matplotlib', 'scipy', 'transformers'}"
    code = f"import sys, mesocosm.studies.fact_recall_downscaling; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_smoke_runs_end_to_end(tmp_path):
    folder = tmp_path / "run"
    assert main(["run", "fact-recall-downscaling", "--preset", "smoke", "--out", str(folder)]) == 0
    assert {path.name for path in (folder / "figures").glob("*.png")} == {"widths.png"}
    assert (folder / "verdicts.json").exists()
