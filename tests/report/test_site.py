import re
import shutil

import pytest
from pages import Page, date

from mesocosm.cli import main
from mesocosm.lab.files import UserError
from mesocosm.report.site import write_site


@pytest.fixture
def older(many):
    folder = shutil.copytree(many, many.with_name("20250101-000000-0000 é"))
    date(folder, "2025-01-01T00:00:00+00:00")
    return folder


def test_site_lists_the_newest_run_first(many, older, tmp_path):
    page = Page(write_site([older, many], tmp_path / "report"))
    links = [link for link in page.links if link.endswith("report.html")]
    assert [("20260102" in link, "20250101" in link) for link in links] == [(True, False), (False, True)]
    assert page.source.index("20260102") < page.source.index("<details>") < page.source.index("20250101")
    for words in ("1 study, 3 claims", "1 supported", "1 not supported", "1 inconclusive", "1 older run"):
        assert words in page.text


def test_each_claim_links_to_its_place_on_the_page(many, older, tmp_path):
    page = Page(write_site([many, older], tmp_path / "deep" / "er"))
    assert sum(link.endswith(("#C1", "#C2", "#C3")) for link in page.links) == 6
    assert page.broken() == []
    assert not [link for link in page.links if ":" in link or link.startswith("/")]
    assert len(page.ids) == len(set(page.ids))
    assert re.search("C2.*✗.*not supported", page.text)


def test_site_writes_missing_pages_only_and_copies_nothing(many, older, tmp_path):
    (older / "report.html").write_text('<p id="C1">earlier</p>')
    index = write_site([many, older], tmp_path / "report")
    assert index == tmp_path / "report" / "index.html"
    assert [path.name for path in index.parent.iterdir()] == ["index.html"]
    assert "Wider nets are faster." in (many / "report.html").read_text()
    assert "earlier" in (older / "report.html").read_text()


def test_site_refuses_what_is_no_run(tmp_path):
    with pytest.raises(UserError, match="is not a run folder"):
        write_site([tmp_path], tmp_path / "report")


def test_command_line_makes_the_site(run, tmp_path, capsys):
    assert main(["report", str(run), "--to", str(tmp_path / "all")]) == 0
    assert "page: " in capsys.readouterr().out
    assert (tmp_path / "all" / "index.html").exists()
