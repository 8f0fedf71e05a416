from pathlib import Path

from mesocosm.cli import main


def test_markdown_holds_every_verdict_check_and_figure(many, tmp_path: Path) -> None:
    assert main(["report", str(many), "--markdown", "--to", str(tmp_path / "results")]) == 0
    text = (tmp_path / "results" / "tiny.md").read_text()
    for words in ("**supported**", "**not supported**", "**inconclusive**", "not measured", "1 of 3 claims supported"):
        assert words in text
    assert "| last error | rule | 0.1 [0, 0.22] | < 0.45 | yes |" in text
    assert "mesocosm run tiny --preset smoke --steps 40" in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count(" | ") for line in table if "---" not in line} == {5, 4}
    assert (tmp_path / "results" / "tiny" / "error.png").read_bytes() == (many / "figures" / "error.png").read_bytes()
    assert (tmp_path / "results" / "tiny" / "verdicts.json").is_file()
