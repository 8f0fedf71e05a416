from dataclasses import dataclass, replace

import pytest

from mesocosm import lab
from mesocosm.cli.flags import parse
from mesocosm.lab.folder import Request
from mesocosm.report.run import Run, outcome, read_run
from mesocosm.settings import setting


@dataclass(frozen=True, kw_only=True)
class Config(lab.Config):
    """Settings."""

    learning_rates: tuple[float, ...] = setting((0.1,), "rates")
    name: str = setting("plain", "name")
    shuffle: bool = setting(True, "whether to shuffle")
    exact: bool = setting(False, "whether to enumerate")
    limit: int | None = setting(None, "limit")


@pytest.mark.parametrize(
    "config",
    [
        Config(),
        Config(learning_rates=(0.1, 1e-05), seeds=3),
        Config(name="two words; rm -rf", shuffle=False, exact=True, limit=4),
    ],
)
def test_command_makes_the_same_configuration(run, config):
    import shlex

    whole = read_run(run)
    study = replace(whole.study, presets={"small": Config()})
    again = replace(whole, study=study, request=Request("tiny", "small", config, None))
    words = shlex.split(again.command)
    assert words[:5] == ["mesocosm", "run", "tiny", "--preset", "small"]
    assert parse("", "", words[5:], Config()) == [config]


def test_command_names_the_model_that_was_swapped_in(run):
    whole = read_run(run)
    swapped = replace(whole, request=replace(whole.request, model="mine:Net"))
    assert "; model mine:Net; " in swapped.summary
    assert swapped.command == "mesocosm run tiny --preset smoke --model mine:Net --steps 40"


def test_machine_is_the_processor_or_the_accelerator(run):
    def machine(**facts):
        return replace(read_run(run), environment=facts).machine

    cpu = machine(device="cpu", processor="Intel(R) Xeon(R) CPU E5-2690 v4 @ 2.60GHz", threads=2)
    assert cpu == "Intel Xeon E5-2690 v4, 2 threads"
    assert machine(device="cpu", processor="", threads=1) == "a CPU, 1 thread"
    assert machine(device="NVIDIA H200") == "NVIDIA H200"


def test_date_is_when_the_run_ended(run):
    assert f"{read_run(run).date:%Y-%m-%d %H:%M:%S}" == "2026-01-02 03:04:05"


def test_outcome_counts_each_verdict():
    def verdicts(*words):
        return outcome([{"verdict": word} for word in words])

    assert verdicts("supported") == "1 of 1 claim supported"
    assert verdicts("supported", "inconclusive") == "1 of 2 claims supported, 1 inconclusive"
    assert verdicts("not supported") == "0 of 1 claim supported, 1 not supported"


def test_a_run_holds_what_its_page_needs(run):
    whole = read_run(run)
    assert isinstance(whole, Run)
    assert whole.captions == {"error": "Held-out error of each rate by step."}
    assert whole.summary.startswith("3 seeds; ")
    assert whole.summary.endswith("; preset smoke except steps; 2026-01-02")
