"""One file an architecture: a function that writes its forward pass down.

`ARCHITECTURES` names them as `general.architecture` does.  To add one, write its file, add it here, and add a
model to the tests.
"""

from __future__ import annotations

from collections.abc import Callable

from kquant.models.architectures.llama import llama
from kquant.models.graph import Graph
from kquant.models.operations import Program

__all__ = ["ARCHITECTURES"]

ARCHITECTURES: dict[str, Callable[[Graph], Program]] = {
    "llama": llama,
}
