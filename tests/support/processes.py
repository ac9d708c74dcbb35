"""Processes that tests start."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence
from typing import Any


def interruptible(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """`subprocess.Popen` of a process that SIGINT interrupts, even where the tests' shell ignores it.

    `nohup` and shells without job control start what runs in the background with SIGINT ignored, and a
    process inherits that.  It does not inherit a handler: the system then sets the signal back.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(command, **options)
    finally:
        signal.signal(signal.SIGINT, before)
