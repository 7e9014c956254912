"""What an icon may be: a small drawing and nothing else. It is shown on the Console's pages; it runs nothing and loads nothing.

Allowed is a list of elements and attributes; whatever is not on it is refused, before anybody has to know what it would do.
"""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree import ElementTree

LARGEST = 2048  # bytes
_SVG = "{http://www.w3.org/2000/svg}"
_ELEMENTS = {
    f"{_SVG}{name}" for name in ("svg", "g", "path", "rect", "circle", "ellipse", "line", "polyline", "polygon", "title")
}
_ATTRIBUTES = {
    *("viewBox", "width", "height", "x", "y", "x1", "y1", "x2", "y2", "cx", "cy", "r", "rx", "ry", "d", "points"),
    *("fill", "fill-rule", "stroke", "stroke-width", "stroke-linecap", "stroke-linejoin", "stroke-dasharray"),
    *("opacity", "fill-opacity", "transform", "role"),
}


def problems(svg: str) -> Iterator[str]:
    if len(svg.encode()) > LARGEST:
        yield f"is larger than {LARGEST} bytes"
        return
    if "<!" in svg or "<?" in svg:  # declarations and entities, and what hides among them
        yield "has a declaration, a comment or a processing instruction"
        return
    try:
        root = ElementTree.fromstring(svg)  # without entities: refused above
    except ElementTree.ParseError:
        yield "is not well-formed XML"
        return
    if root.tag != f"{_SVG}svg" or "viewBox" not in root.attrib:
        yield "must be an <svg> of SVG's namespace, with a viewBox"
    for element in root.iter():
        if element.tag not in _ELEMENTS:
            yield f"has the element {_bare(element.tag)}, which no drawing needs"
        for name, value in element.attrib.items():
            if name not in _ATTRIBUTES:
                yield f"has the attribute {_bare(name)}, which no drawing needs"
            elif "url(" in value.lower() or ":" in value:
                yield f"refers to something elsewhere in {name}"


def _bare(name: str) -> str:
    return name.rpartition("}")[2][:40]
