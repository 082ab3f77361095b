"""Figures as a part of the page: SVG of known elements alone, in colours for light and dark."""

from __future__ import annotations

import colorsys
import re
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from tinymim.report import figures

SVG, LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"

ELEMENTS = {"g", "defs", "clipPath", "path", "rect", "circle", "line", "use", "text", "tspan", "image", "title"}
"""Elements that are kept: they draw, and neither run nor load anything."""

ATTRIBUTES = (
    {"id", "class", "style", "d", "transform", "clip-path", "x", "y", "width", "height", "r", "cx", "cy", "opacity"}
    | {"x1", "y1", "x2", "y2", "fill", "stroke", "pointer-events", "points", "preserveAspectRatio"}
)  # fmt: skip

DRAWN = re.compile(r"data:image/png;base64,[A-Za-z0-9+/=\s]+")
"""Address of a raster picture within a figure."""

OWN = re.compile(r"#[\w.-]+")
"""Address of another element of the figure."""

LEAST = 0.5
"""Least lightness of a colour on a dark page."""


def inline(content: bytes, title: str, number: int, kind: str = "") -> str:
    """An ``svg`` element for a page.

    Args:
        content: of the file, as matplotlib writes it.
        title: for those who see no pictures.
        number: of the figure on its page: names within it begin with it, as names of a page are all different.
        kind: ``wide`` takes the whole width, and ``narrow`` stands in the place of the one before it on a narrow page.

    Raises:
        ElementTree.ParseError: it is no XML.
    """
    root = ElementTree.fromstring(content)
    box = [float(part) for part in root.get("viewBox", "0 0 0 0").split()]
    shown = Element("svg", {"viewBox": " ".join(f"{part:g}" for part in box), "role": "img", "aria-label": title})
    shown.set("class", f"figure {kind}".strip())
    if kind == "wide":
        shown.set("style", f"--drawn: {box[2]:g}pt")
    shown.extend(_kept(child, f"f{number}-") for child in root if _name(child) in ELEMENTS)
    return ElementTree.tostring(shown, "unicode", short_empty_elements=True)


def _name(element: Element) -> str:
    return element.tag.removeprefix(SVG) if isinstance(element.tag, str) else ""


def _kept(element: Element, names: str) -> Element:
    attributes = {}
    for name, value in element.items():
        if name == "id":
            value = names + value
        if name in ("href", LINK):
            if OWN.fullmatch(value):
                attributes["href"] = f"#{names}{value[1:]}"
            elif _name(element) == "image" and DRAWN.fullmatch(value):
                attributes["href"] = "".join(value.split())
        elif name in ATTRIBUTES:
            attributes[name] = _coloured(re.sub(r"url\(#", f"url(#{names}", value), name)
    kept = Element(_name(element), attributes)
    kept.text, kept.tail = element.text, None
    kept.extend(_kept(child, names) for child in element if _name(child) in ELEMENTS)
    if kept.tag not in ("text", "tspan", "title"):
        kept.text = None
    return kept


def _coloured(value: str, attribute: str) -> str:
    """A style whose colours follow the page; an address of anything outside the figure is none."""
    if re.search(r"url\(\s*['\"]?(?!#)|expression|@import", value, re.IGNORECASE):
        return ""
    if attribute not in ("style", "fill", "stroke"):
        return value
    value = re.sub(r"fill: #ffffff\b", "fill: none", value)  # the paper behind it, which is the page's
    value = re.sub(r"font-family: [^;]*;?", "", value)
    return re.sub(r"#[0-9a-f]{6}\b(?!-)", lambda match: both(match[0]), value)


def both(colour: str) -> str:
    """A colour, ``#rrggbb``, and what stands for it on a dark page: as light at the least as a middle grey."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    if colour in figures.ON_MAP:
        return colour
    if red == green == blue == 0:
        return "currentColor"
    hue, light, saturation = colorsys.rgb_to_hls(red, green, blue)
    if light >= LEAST:
        return colour
    lighter = (round(255 * part) for part in colorsys.hls_to_rgb(hue, 1 - light, saturation * 0.9))
    return f"light-dark({colour}, #{''.join(f'{part:02x}' for part in lighter)})"
