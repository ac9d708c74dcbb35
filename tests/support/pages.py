"""What an HTML page contains, as far as tests ask."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

Attributes = dict[str, str]


@dataclass
class Page(HTMLParser):
    """Every element of a page, its scripts, and its text."""

    source: str
    elements: list[tuple[str, Attributes]] = field(default_factory=list)
    scripts: list[tuple[Attributes, str]] = field(default_factory=list)
    words: str = ""

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.elements.append((tag, attributes))
        if tag == "script":
            self.scripts.append((attributes, ""))

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            attributes, text = self.scripts[-1]
            self.scripts[-1] = attributes, text + data
        elif self.cdata_elem is None:
            self.words += f"{data} "

    def all(self, tag: str, **attributes: str) -> list[Attributes]:
        """The elements of that name, and with these attributes."""
        return [found for name, found in self.elements if name == tag and attributes.items() <= found.items()]

    @property
    def charts(self) -> dict[str, Any]:
        """Place of a picture -> what Vega-Lite is told."""
        return {a["data-for"]: json.loads(text) for a, text in self.scripts if "data-for" in a}

    def rows(self, chart: str, layer: int = 0) -> list[dict[str, Any]]:
        """The data of a picture, or of one of its layers."""
        spec = self.charts[chart]
        data = spec.get("data") or spec["layer"][layer]["data"]
        found: list[dict[str, Any]] = data["values"] if "values" in data else spec["datasets"][data["name"]]
        return found

    @property
    def allowed_scripts(self) -> set[str]:
        """The hashes in the policy."""
        (policy,) = self.all("meta", **{"http-equiv": "Content-Security-Policy"})
        return set(re.findall(r"'sha256-([^']+)'", policy["content"]))

    @property
    def script_hashes(self) -> set[str]:
        """The hashes of the scripts that a browser would run."""
        return {
            base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            for attributes, text in self.scripts
            if "type" not in attributes
        }
