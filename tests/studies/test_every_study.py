"""What holds for every study: any configuration runs or is refused in one sentence; help is fast; it is complete."""

import contextlib
import dataclasses
import io
import itertools
import subprocess
import sys
import tempfile
import typing
from dataclasses import replace
from pathlib import Path
from typing import Literal
from unittest.mock import patch

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matplotlib import pyplot

from mesocosm.cli import main
from mesocosm.lab import folder as folders
from mesocosm.lab import jobs, runner
from mesocosm.lab.files import write
from mesocosm.lab.lab import Lab
from mesocosm.lab.runner import train_all
from mesocosm.pieces import pieces
from mesocosm.training.history import merged

STUDIES = sorted(pieces("study"))


def values(annotation, default, low, high) -> st.SearchStrategy[list[str]]:
    """Command-line words for a field: legal and cheap ones, and ones just outside what is legal."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return st.sampled_from([*arguments, "nonsense"]).map(lambda v: [str(v)])
    if origin is tuple:
        one = values(arguments[0], default[0] if default else None, low, high)
        return st.lists(one, min_size=1, max_size=2).map(lambda words: [w for word in words for w in word])
    if annotation in (int, float):
        edges = [v for v in (low, low and low - 1, high and high + 1, default) if v is not None]
        return st.sampled_from([*map(str, edges), "nan", "many", "1e999", ""]).map(lambda v: [v])
    return st.sampled_from(["none", "somewhere", ""]).map(lambda v: [v])


@st.composite
def flags(draw, study: str) -> list[str]:
    config = pieces("study")[study].load().presets["smoke"]
    hints = typing.get_type_hints(type(config))
    fields = [f for f in dataclasses.fields(config) if hints[f.name] is not bool]
    words: list[str] = []
    for field in draw(st.lists(st.sampled_from(fields), min_size=1, max_size=2, unique=True)):
        low, high = field.metadata["low"], field.metadata["high"]
        words.append("--" + field.name.replace("_", "-"))
        words += draw(values(hints[field.name], getattr(config, field.name), low, high))
    return words


def short(cell):
    grow = [replace(growth, step=step) for step, growth in enumerate(cell.grow, start=1)]
    return replace(cell, steps=min(cell.steps, 2 + len(grow)), grow=grow)


def shortened(self: Lab, cell):
    return train(self, short(cell))


train = Lab.train


def save_once(drawing, folder: Path) -> None:
    """As `runner.save_drawing`, but drawn once: what is called PNG is the SVG."""
    picture = io.BytesIO()
    drawing.figure.savefig(picture, format="svg")
    for kind in ("png", "svg"):
        write(folder / f"{drawing.name}.{kind}", picture.getvalue())
    pyplot.close(drawing.figure)


@pytest.mark.slow
@pytest.mark.parametrize("study", STUDIES)
@settings(max_examples=5, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
@pytest.mark.usefixtures("tiny_default")
def test_any_configuration_runs_or_is_refused_in_one_sentence(study: str, data) -> None:
    words = data.draw(flags(study))
    errors = io.StringIO()
    quick, once = patch.object(Lab, "train", shortened), patch.object(runner, "save_drawing", save_once)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(errors), quick, once:
        status = main(["run", study, "--preset", "smoke", *words, "--out", str(Path(folder) / "run")])
    assert status in (0, 2), (words, errors.getvalue())
    lines = errors.getvalue().splitlines()
    assert len(lines) == (status != 0), (words, lines)
    assert all(line.startswith("mesocosm: error: ") for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize("study", STUDIES)
@pytest.mark.usefixtures("tiny_default")
def test_complete_cells_are_trained_ahead_just_as_in_the_run(study: str, tmp_path: Path, monkeypatch) -> None:
    """From names alone, in two jobs; a cell that `run` changes first must say that it is not complete."""
    trained, fit = {}, Lab.fit

    def short_fit(self: Lab, cell, rows, name):
        history = fit(self, short(cell), rows, name)
        trained[name] = history.saved()
        return history

    monkeypatch.setattr(Lab, "fit", short_fit)
    request = folders.Request(study, "smoke", pieces("study")[study].load().presets["smoke"])
    train_all(request, Lab(folders.create(request, tmp_path / "run")))
    for part in jobs.unfinished(request, tmp_path / "elsewhere"):
        tensors, facts = trained[part.cell]
        (job,) = jobs.plan_jobs([[part]], Lab(None), jobs.InProcess())
        cuts = [0, part.replicas // 2, part.replicas] if part.replicas > 1 else [0, 1]
        given = [jobs.train_job(replace(job, rows=range(*cut))) for cut in itertools.pairwise(cuts)]
        ahead, told = merged(given)
        timeless = {"seconds": 0, "clock": {}}
        assert told | timeless == facts | timeless
        assert ahead.keys() == tensors.keys()
        for name, tensor in tensors.items():
            torch.testing.assert_close(ahead[name], tensor, rtol=0, atol=0, equal_nan=True, msg=f"{part.cell}: {name}")


@pytest.mark.parametrize("study", STUDIES)
def test_help_lists_every_setting_without_importing_torch(study: str) -> None:
    code = "\n".join(
        [
            "import sys",
            "from mesocosm.cli import main",
            f"try: main(['run', {study!r}, '--help'])",
            "finally: assert 'torch' not in sys.modules or 'tiny' in sys.argv, 'torch was imported'",
        ]
    )
    arguments = [sys.executable, "-c", code, *(["tiny"] if study == "tiny" else [])]
    shown = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
    for field in dataclasses.fields(pieces("study")[study].load().presets["small"]):
        assert f"--{field.name.replace('_', '-')}" in shown


@pytest.mark.usefixtures("tiny_default")
@pytest.mark.parametrize("study", STUDIES)
def test_a_study_is_complete(study: str) -> None:
    whole = pieces("study")[study].load()
    assert set(whole.presets) == {"smoke", "small", "paper"}
    assert whole.question.endswith("?")
    assert "arXiv" in whole.paper or study == "tiny"
    identifiers = [claim.id for claim in whole.claims]
    assert len(set(identifiers)) == len(identifiers)
    for preset, config in whole.presets.items():
        if preset == "paper" and study == "disagreement":
            continue  # It needs CIFAR-10, which is not here.
        names = [cell.name for cell in whole.plan(config)]
        assert names or whole.estimate, "nothing is trained, and no cost is told"
        assert len(set(names)) == len(names)
