"""One file a family: a function for each architecture that writes its forward pass down.

`ARCHITECTURES` names them as `general.architecture` does.  To add one, write its file, add it here, and add a
model to the tests.
"""

from __future__ import annotations

from collections.abc import Callable

from kquant.models.architectures.baichuan import baichuan, refact, xverse
from kquant.models.architectures.bloom import bloom
from kquant.models.architectures.falcon import falcon
from kquant.models.architectures.gpt2 import gpt2
from kquant.models.architectures.gptneox import gptneox
from kquant.models.architectures.jais import jais
from kquant.models.architectures.llama import llama
from kquant.models.architectures.minicpm import minicpm
from kquant.models.architectures.mpt import mpt
from kquant.models.architectures.nemotron import nemotron
from kquant.models.architectures.orion import orion
from kquant.models.architectures.phi2 import phi2
from kquant.models.architectures.phi3 import phi3
from kquant.models.architectures.plamo import plamo
from kquant.models.architectures.qwen import qwen
from kquant.models.architectures.qwen2 import qwen2
from kquant.models.architectures.qwen2moe import qwen2moe
from kquant.models.architectures.qwen3 import qwen3
from kquant.models.architectures.stablelm import stablelm
from kquant.models.architectures.starcoder2 import starcoder2
from kquant.models.graph import Graph
from kquant.models.operations import Program

__all__ = ["ARCHITECTURES"]

ARCHITECTURES: dict[str, Callable[[Graph], Program]] = {
    "baichuan": baichuan,
    "bloom": bloom,
    "codeshell": starcoder2,
    "exaone": qwen2,
    "falcon": falcon,
    "gpt2": gpt2,
    "gptneox": gptneox,
    "jais": jais,
    "llama": llama,
    "minicpm": minicpm,
    "mistral3": llama,
    "mpt": mpt,
    "nemotron": nemotron,
    "orion": orion,
    "phi2": phi2,
    "phi3": phi3,
    "phimoe": phi3,
    "plamo": plamo,
    "qwen": qwen,
    "qwen2": qwen2,
    "qwen2moe": qwen2moe,
    "qwen3": qwen3,
    "qwen3moe": qwen3,
    "refact": refact,
    "stablelm": stablelm,
    "starcoder": gpt2,
    "starcoder2": starcoder2,
    "xverse": xverse,
}
