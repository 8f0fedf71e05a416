import re
from dataclasses import replace

import pytest
from pages import Page

from mesocosm.lab.files import RunError, UserError, read_json, write_json
from mesocosm.report import page as pages
from mesocosm.report.page import write_page
from mesocosm.report.run import read_run

HOSTILE = "<script>alert('x')</script>\"><img src=http://a.b/c onerror=alert(1)> </svg></style> {{ 7 * 7 }} & 3 < 4"


def claims(run):
    return read_json(run / "verdicts.json")["claims"]


def change_claim(run, **values):
    verdicts = read_json(run / "verdicts.json")
    write_json(run / "verdicts.json", {**verdicts, "claims": [{**c, **values} for c in verdicts["claims"]]})


def test_page_of_a_run_says_all_of_it(many):
    path = write_page(many)
    assert path == many / "report.html"
    page = Page(path)
    study = read_run(many).study
    for words in (study.title, study.question, study.paper, "1 of 3 claims supported, 1 not supported, 1 inconclusive"):
        assert words in page.text
    for claim in claims(many):
        assert claim["id"] in page.ids
        assert all(claim[name] in page.text for name in ("statement", "verdict", "rule", "paper", "note"))
        for check in claim["checks"]:
            assert check["name"] in page.text
            assert check["bound"] in page.text
    assert "effect absent" in page.text
    assert "not measured" in page.text
    assert "3 seeds" in page.text
    for name, version in read_json(many / "environment.json")["versions"].items():
        assert f"{name} {version}" in page.text
    assert "mesocosm run tiny --preset smoke --steps 40" in page.text
    assert "40 (preset: 200)" in page.text
    assert "2026-01-02" in page.text
    assert len(page.all("details")) == 3


def test_verdicts_are_words_symbols_and_colours(many):
    source = Page(write_page(many)).source
    for verdict, tone, symbol in (
        ("supported", "yes", "✓"),
        ("not supported", "no", "✗"),
        ("inconclusive", "open", "?"),
    ):
        assert f'class="badge {tone}"><span aria-hidden="true">{symbol}</span> {verdict}<' in source


def test_every_figure_has_a_text_alternative(many):
    page = Page(write_page(many))
    svgs = [attributes for attributes in page.all("svg") if "aria-hidden" not in attributes]
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in svgs)
    assert {"The error.", "The error, again."} < {svg["aria-label"] for svg in svgs}
    assert page.text.count("The error.") == 1
    assert "last error: 0" in next(svg["aria-label"] for svg in svgs if svg["class"] == "bar")


def test_ids_are_unique_and_links_lead_somewhere(many):
    page = Page(write_page(many))
    assert len(page.ids) == len(set(page.ids)) > 20
    assert page.broken() == []
    assert {"records.parquet", "verdicts.json", "figures/error.png"} <= set(page.links)
    painted = re.findall(r"url\(#([^)]*)\)", page.source)
    assert painted
    assert set(painted) <= set(page.ids)


def test_page_loads_nothing(many):
    page = Page(write_page(many))
    assert not [tag for tag, attributes in page.elements if tag in ("script", "link", "iframe", "object")]
    assert not [attributes["src"] for _, attributes in page.elements if "src" in attributes]
    assert not re.search(r"@import|url\((?!#)", page.source)
    assert "default-src 'none'" in page.source
    assert not [link for link in page.links if ":" in link]


@pytest.mark.parametrize("field", ["statement", "rule", "paper", "note", "unit"])
def test_hostile_text_of_a_claim_is_escaped(run, field):
    change_claim(run, **{field: HOSTILE})
    page = Page(write_page(run))
    assert not page.all("script") + page.all("img")
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert " ".join(HOSTILE.split()) in page.text


def test_hostile_names_of_checks_and_captions_are_escaped(run):
    change_claim(
        run, checks=[{"name": HOSTILE, "estimate": 0, "low": 0, "high": 0, "bound": "< 1", "verdict": "supported"}]
    )
    write_json(run / "figures" / "captions.json", {"captions": {"error": HOSTILE}})
    page = Page(write_page(run))
    assert not page.all("script") + page.all("img")
    assert {HOSTILE, HOSTILE + ": 0; bound: < 1"} <= {svg.get("aria-label") for svg in page.all("svg")}


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("environment.json", "resume"),
        ("records.parquet", "resume"),
        ("verdicts.json", "judge"),
        ("figures/captions.json", "draw"),
        ("figures/error.svg", "draw"),
        ("figures/error.png", "draw"),
    ],
)
def test_a_missing_file_is_named_with_its_remedy(run, name, command):
    (run / name).unlink()
    (run / "report.html").write_text("earlier")
    with pytest.raises(RunError, match=f"has no {name} yet; make it with `mesocosm {command} "):
        write_page(run)
    assert (run / "report.html").read_text() == "earlier"


def test_damaged_figures_and_other_folders_are_refused(run, tmp_path):
    figure = run / "figures" / "error.svg"
    figure.write_bytes(figure.read_bytes()[:1000])
    with pytest.raises(RunError, match=r"is damaged .*`mesocosm draw"):
        write_page(run)
    with pytest.raises(UserError, match="is not a run folder"):
        write_page(tmp_path)


def test_run_without_figures_or_claims_has_a_page(run):
    write_json(run / "figures" / "captions.json", {"captions": {}})
    write_json(run / "verdicts.json", {**read_json(run / "verdicts.json"), "claims": []})
    page = Page(write_page(run))
    assert "0 of 0 claims supported" in page.text
    assert not page.all("figure")


@pytest.mark.parametrize(
    ("paper", "link"),
    [
        ("Barak et al., NeurIPS 2022, arXiv:2207.08799", "https://arxiv.org/abs/2207.08799"),
        ("Someone, https://openreview.net/forum?id=a&b (2020).", "https://openreview.net/forum?id=a&b"),
        ("Someone, https://a.b/c).", "https://a.b/c"),
        ("Someone, javascript:alert(1)", None),
    ],
)
def test_paper_is_linked_where_it_says_where_it_is(run, monkeypatch, paper, link):
    whole = read_run(run)
    other = replace(whole, study=replace(whole.study, paper=paper, departures=["A smaller net."]))
    monkeypatch.setattr(pages, "read_run", lambda folder: other)
    page = Page(write_page(run))
    assert [found for found in page.links if ":" in found] == ([link] if link else [])
    assert paper in page.text
    assert "Departures from the paper A smaller net." in page.text


def test_contrast_is_at_least_aa():
    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(a, b):
        dark, light = sorted([luminance(a), luminance(b)])
        return (light + 0.05) / (dark + 0.05)

    style = pages._environment().get_template("style.css").render()
    light, dark, printed = [
        dict(re.findall(r"--(\w+): (#\w+)", root)) for root in re.findall(r":root \{(.*?)\}", style, re.S)
    ]
    for sheet in (light, light | dark):
        for text in ("text", "quiet", "link"):
            assert contrast(sheet[text], sheet["page"]) >= 4.5
            assert contrast(sheet[text], sheet["card"]) >= 4.5
        for tone in ("yes", "no", "open"):
            assert contrast(sheet[tone], "#000000") >= 4.5
    assert printed
