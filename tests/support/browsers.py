"""The browser that opens reports: one that is installed; none is downloaded."""

from __future__ import annotations

import shutil

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")


def installed_browser() -> str | None:
    """The path of the first that there is."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)
