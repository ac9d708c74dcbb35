"""The site: `sphinx-build -W -b html docs site` builds it, without network."""

import builtins
import re
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx

import kquant

project = "kquant"
copyright = "kquant contributors, MIT license"
release = version = kquant.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = "kquant"
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["site.css"]

default_role = "code"
autodoc_member_order = "bysource"
autodoc_type_aliases = {"npt.ArrayLike": "npt.ArrayLike", "npt.DTypeLike": "npt.DTypeLike"}


def leave_builtins_alone(app: Sphinx, page: nodes.document) -> None:
    """`bytes` in a signature is Python's, and not an attribute that has the same name."""
    for reference in list(page.findall(pending_xref)):
        if hasattr(builtins, reference["reftarget"]):
            reference.replace_self(reference.children)


def keep_colons(app: Sphinx, what: str, name: str, thing: object, options: Any, lines: list[str]) -> None:
    """Napoleon takes what an attribute's docstring says before a colon for its type."""
    for at, line in enumerate(lines):
        if what in ("attribute", "property") and line.startswith(":type: "):
            lines[:] = [f"{line.removeprefix(':type: ')}: {lines[0]}", *lines[1:at]]


def name_aliases(
    app: Sphinx, what: str, name: str, thing: object, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Sphinx 9 shows an alias in a union as its wrapper."""
    return re.sub(r"TypeAliasForwardRef\('([\w.]+)'\)", r"\1", signature or "") or None, returns


def setup(app: Sphinx) -> None:
    """Sphinx calls this."""
    app.connect("autodoc-process-docstring", keep_colons, priority=600)
    app.connect("autodoc-process-signature", name_aliases)
    app.connect("doctree-read", leave_builtins_alone)
