"""One file a family: a function for each architecture that writes its forward pass down.

`ARCHITECTURES` names them as `general.architecture` does.  To add one, write its file, add it here, and add a
model to the tests.
"""

from __future__ import annotations

from collections.abc import Callable

from kquant.models.architectures.cohere import cohere2, command_r
from kquant.models.architectures.exaone4 import exaone4
from kquant.models.architectures.gemma import gemma, gemma2, gemma3
from kquant.models.architectures.gpt_oss import gpt_oss
from kquant.models.architectures.granite import granite
from kquant.models.architectures.internlm2 import internlm2
from kquant.models.architectures.llama import llama
from kquant.models.architectures.olmo import olmo, olmo2, olmoe
from kquant.models.architectures.smollm3 import smollm3
from kquant.models.graph import Graph
from kquant.models.operations import Program

__all__ = ["ARCHITECTURES"]

ARCHITECTURES: dict[str, Callable[[Graph], Program]] = {
    "cohere2": cohere2,
    "command-r": command_r,
    "exaone4": exaone4,
    "gemma": gemma,
    "gemma2": gemma2,
    "gemma3": gemma3,
    "gpt-oss": gpt_oss,
    "granite": granite,
    "granitemoe": granite,
    "internlm2": internlm2,
    "llama": llama,
    "olmo": olmo,
    "olmo2": olmo2,
    "olmoe": olmoe,
    "smollm3": smollm3,
}
