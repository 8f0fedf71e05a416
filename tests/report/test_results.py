from pathlib import Path

from mesocosm.cli import main
from mesocosm.lab.files import read_json
from mesocosm.lab.text import effect


def test_markdown_holds_every_verdict_check_and_figure(many, tmp_path: Path) -> None:
    assert main(["report", str(many), "--markdown", "--to", str(tmp_path / "results")]) == 0
    text = (tmp_path / "results" / "tiny.md").read_text()
    for words in ("**supported**", "**not supported**", "**inconclusive**", "not measured", "1 of 3 claims supported"):
        assert words in text
    found = read_json(many / "verdicts.json")["claims"][0]["checks"][0]
    shown = effect(found["estimate"], (found["low"], found["high"]))
    assert f"| last error | rule | {shown} | < 0.45 | yes |" in text
    assert "mesocosm run tiny --preset smoke --steps 40" in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count(" | ") for line in table if "---" not in line} == {5, 4}
    assert (tmp_path / "results" / "tiny" / "error.png").read_bytes() == (many / "figures" / "error.png").read_bytes()
    assert (tmp_path / "results" / "tiny" / "verdicts.json").is_file()


def test_a_second_run_of_a_study_can_have_a_name_of_its_own(many, tmp_path: Path, capsys) -> None:
    asked = ["report", str(many), "--markdown", "--to", str(tmp_path / "results"), "--name"]
    assert main([*asked, "tiny-again"]) == 0
    assert "(tiny-again/error.png)" in (tmp_path / "results" / "tiny-again.md").read_text()
    assert (tmp_path / "results" / "tiny-again" / "verdicts.json").is_file()
    assert main([*asked, "../tiny"]) == 2
    assert "--name ../tiny is not legal" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == ["tiny-again", "tiny-again.md"]
