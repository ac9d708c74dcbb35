"""Facts and figures as one HTML page that needs nothing else: no network, no other file."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files
from typing import Any

import altair as alt
import vl_convert
from jinja2 import Environment, StrictUndefined

import kquant
from kquant._text import printable
from kquant.reporting import colours
from kquant.reporting.facts import Facts
from kquant.reporting.sections import sections, summary

__all__ = ["render"]

# colours are variables of the page, so that pictures follow it from light to dark
CONFIG: dict[str, Any] = {
    "background": "transparent",
    "font": "system-ui, sans-serif",
    "aria": False,  # the place of a picture has its text alternative, and the table its values
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--muted)",
        "titleColor": "var(--muted)",
        "titleFontWeight": "normal",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "gridColor": "var(--line)",
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
    },
    "text": {"fontSize": 12},
}


def render(facts: Facts) -> str:
    """The page, as HTML.

    Whatever comes from the files is escaped, and the page's policy allows no script but its own two and no
    access to the network.
    """
    file = facts.file
    library, start = _library(), _text("page.js")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["unbroken"] = _unbroken
    return environment.from_string(_text("page.html")).render(
        title=printable(file.name or file.paths[0].name),
        files=[printable(path.name) for path in file.paths],
        source=printable(facts.source.paths[0].name) if facts.source else None,
        summary=summary(facts),
        sections=sections(facts),
        metadata=[(printable(entry.key), entry.kind, printable(entry.text())) for entry in file.metadata],
        config=CONFIG,
        style=colours.stylesheet(len(file.types)) + "\n" + _text("page.css"),
        library=library,
        start=start,
        hashes=" ".join(map(_hash, (library, start))),
        version=kquant.__version__,
    )


def _text(name: str) -> str:
    return files("kquant.reporting").joinpath(name).read_text(encoding="utf-8")


def _unbroken(text: str) -> str:
    """No line ends between a number and its unit."""
    return re.sub(r"(\d) (?=%|bits|[KMG]?i?B)", "\\1\N{NO-BREAK SPACE}", text)


@cache
def _library() -> str:
    """Vega-Embed with Vega and Vega-Lite, in the version that Altair writes for."""
    version = ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])
    script: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=version)
    return script.replace("</script", r"<\/script").replace("<!--", r"<\!--")


def _hash(script: str) -> str:
    """The name of a script in the page's policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
