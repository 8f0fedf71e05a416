import math
import re
from xml.etree import ElementTree

import pytest

from mesocosm import lab
from mesocosm.lab.claims import contains, within
from mesocosm.lab.statistics import Interval
from mesocosm.report.pictures import WIDTH, allowed, bar, inline


def check(bound, estimate=0.5, low=0.4, high=0.6):
    return {"name": "error", "estimate": estimate, "low": low, "high": high, "bound": bound}


def test_bounds_of_all_rules_are_understood():
    interval = Interval(0.5, 0.4, 0.6)
    assert allowed(lab.above("", interval, 1.5e-7).bound) == (1.5e-7, math.inf)
    assert allowed(lab.below("", interval, -2e20).bound) == (-math.inf, -2e20)
    assert allowed(within("", interval, -0.5, 1).bound) == (-0.5, 1)
    assert allowed(contains("", interval, 3).bound) == (3, 3)
    assert allowed("> 0.3 of the seeds") is None
    assert allowed("largest difference below 1e-05") is None


def places(picture):
    root = ElementTree.fromstring(picture)
    dot, region = root.find("circle"), root.find("rect")
    bounds = [float(p.get("d").split()[0][1:]) for p in root.findall("path[@class='bound']")]
    ends = [float(x) for p in root.findall("path[@class='interval']") for x in re.findall(r"[MH]([\d.]+)", p.get("d"))]
    left = float(region.get("x"))
    return float(dot.get("cx")), ends, bounds, (left, round(left + float(region.get("width")), 1))


@pytest.mark.parametrize(
    ("bound", "inside"), [("> 0.3", True), ("< 0.3", False), ("in [0.2, 0.8]", True), ("in [0.7, 0.8]", False)]
)
def test_bar_shows_whether_the_interval_clears_its_bound(bound, inside):
    dot, (low, high), bounds, (left, right) = places(bar(check(bound)))
    assert 0 < low < dot < high < WIDTH
    assert (left <= low and high <= right) == inside
    assert set(bounds) <= {left, right}
    assert all(0 < b < WIDTH for b in bounds)


@pytest.mark.parametrize("bound", ["> 0.5", "interval contains 0.5", "in [0.5, 0.5]", "< 0"])
@pytest.mark.parametrize("ends", [(0.5, 0.5), (None, None), (None, 0.7)])
def test_bar_without_an_interval_shows_the_estimate(bound, ends):
    dot, _, _, (left, right) = places(bar(check(bound, 0.5, *ends)))
    assert 0 < dot < WIDTH
    assert 0 <= left <= right <= WIDTH


def test_no_bar_where_there_is_nothing_to_compare():
    assert bar(check("the same in all seeds")) is None
    assert bar(check("> 0.3", None, None, None)) is None


def test_bar_of_zeros():
    assert places(bar(check("> 0", 0.0, 0.0, 0.0)))[0] == WIDTH / 2


def test_figure_keeps_its_drawing_and_loses_what_would_leak(run):
    path = run / "figures" / "error.svg"
    drawn, text = ElementTree.parse(path).getroot(), inline(path, "f1-", 'Error "by" <step>')
    root = ElementTree.fromstring(text)
    shapes = [element for element in drawn.iter() if element.tag.endswith(("}path", "}use"))]
    assert len([e for e in root.iter() if e.tag.endswith(("}path", "}use"))]) == len(shapes) > 20
    assert root.get("aria-label") == 'Error "by" <step>'
    assert all(e.get("id", "f1-").startswith("f1-") for e in root.iter())
    assert "<style" not in text
    assert "<svg " in text[:5]
