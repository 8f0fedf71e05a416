"""Pictures inside a page: a run's figures as inline SVG, and a claim's interval beside its bound."""

import math
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from markupsafe import Markup, escape

from mesocosm.lab.files import RunError
from mesocosm.lab.text import effect

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
ElementTree.register_namespace("", SVG)
ElementTree.register_namespace("xlink", XLINK)


def inline(path: Path, prefix: str, alternative: str) -> Markup:
    """A figure as an element of a page that may hold others: its ids get a prefix of their own.

    Raises:
        RunError: when the file is not an SVG.
    """
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except ElementTree.ParseError as error:
        raise RunError(f"{path} is damaged ({error}); draw it again with `mesocosm draw {path.parents[1]}`") from error
    for parent in list(root.iter()):
        for child in list(parent):
            # A style sheet would hold for the whole page; metadata only says who drew it.
            if child.tag in (f"{{{SVG}}}style", f"{{{SVG}}}metadata"):
                parent.remove(child)
        for name, value in parent.items():
            if name == "id":
                parent.set(name, prefix + value)
            elif name in ("href", f"{{{XLINK}}}href"):
                parent.set(name, re.sub("^#", f"#{prefix}", value))
            else:
                parent.set(name, value.replace("url(#", f"url(#{prefix}"))
    width, height = (float(size) for size in root.get("viewBox", "0 0 1 1").split()[2:])
    root.attrib.update({"role": "img", "aria-label": alternative, "class": "wide" if width > 2 * height else "plain"})
    return Markup(ElementTree.tostring(root, encoding="unicode"))


NUMBER = r"(-?[\d.]+(?:e[-+]\d+)?)"
WIDTH, AXIS, LABEL = 300, 16, 44


def allowed(bound: str) -> tuple[float, float] | None:
    """The range that a check's bound allows, such as `(0.3, inf)` for `> 0.3`; None for a bound in words."""
    if found := re.fullmatch(f"> {NUMBER}", bound):
        return float(found[1]), math.inf
    if found := re.fullmatch(f"< {NUMBER}", bound):
        return -math.inf, float(found[1])
    if found := re.fullmatch(rf"in \[{NUMBER}, {NUMBER}\]", bound):
        return float(found[1]), float(found[2])
    if found := re.fullmatch(f"interval contains {NUMBER}", bound):
        return float(found[1]), float(found[1])
    return None


def bar(check: dict[str, Any]) -> Markup | None:
    """The estimate and interval of a check beside what its bound allows; None where either is not a number."""
    estimate, low, high = check["estimate"], check["low"], check["high"]
    span = allowed(check["bound"])
    if estimate is None or span is None:
        return None
    bounds = [b for b in dict.fromkeys(span) if math.isfinite(b)]
    shown = [v for v in (estimate, low, high, *bounds) if v is not None]
    spread = max(shown) - min(shown) or abs(estimate) or 1.0
    left, right = min(shown) - 0.2 * spread, max(shown) + 0.2 * spread

    def x(value: float) -> float:
        return round((min(max(value, left), right) - left) / (right - left) * WIDTH, 1)

    parts = [
        f'<rect class="allowed" x="{x(span[0])}" y="2" width="{x(span[1]) - x(span[0]):.1f}" height="28"/>',
        f'<path class="axis" d="M0 {AXIS}H{WIDTH}"/>',
    ]
    for bound, anchor in zip(bounds, ("end", "start") if len(bounds) == 2 else ("middle",)):
        label = escape(check["bound"] if math.inf in map(abs, span) else f"{bound:g}")
        parts.append(f'<path class="bound" d="M{x(bound)} 0V32"/>')
        parts.append(f'<text x="{x(bound)}" y="{LABEL}" text-anchor="{anchor}">{label}</text>')
    if low is not None and high is not None:
        parts.append(f'<path class="interval" d="M{x(low)} 10v12m0 -6H{x(high)}m0 -6v12"/>')
    parts.append(f'<circle class="estimate" cx="{x(estimate)}" cy="{AXIS}" r="5"/>')
    words = escape(f"{check['name']}: {effect(estimate, (low, high))}; bound: {check['bound']}")
    frame = f'<svg class="bar" role="img" aria-label="{words}" viewBox="0 0 {WIDTH} 48">'
    return Markup(frame + "".join(parts) + "</svg>")
