"""One file a family: a function for each architecture that writes its forward pass down.

`ARCHITECTURES` names them as `general.architecture` does.  To add one, write its file, add it here, and add a
model to the tests.
"""

from __future__ import annotations

from collections.abc import Callable

from kquant.models.architectures.arcee import arcee
from kquant.models.architectures.baichuan import baichuan, refact, xverse
from kquant.models.architectures.bert import bert, jina_bert_v2, nomic_bert
from kquant.models.architectures.bloom import bloom
from kquant.models.architectures.cohere import cohere2, command_r
from kquant.models.architectures.dbrx import dbrx
from kquant.models.architectures.deci import deci
from kquant.models.architectures.dots1 import dots1
from kquant.models.architectures.ernie4_5 import ernie4_5, ernie4_5_moe
from kquant.models.architectures.exaone4 import exaone4
from kquant.models.architectures.falcon import falcon
from kquant.models.architectures.gemma import gemma, gemma2, gemma3
from kquant.models.architectures.glm import chatglm, glm4
from kquant.models.architectures.gpt2 import gpt2
from kquant.models.architectures.gpt_oss import gpt_oss
from kquant.models.architectures.gptneox import gptneox
from kquant.models.architectures.granite import granite
from kquant.models.architectures.grok import grok
from kquant.models.architectures.hunyuan import hunyuan_dense, hunyuan_moe
from kquant.models.architectures.internlm2 import internlm2
from kquant.models.architectures.jais import jais
from kquant.models.architectures.llama import llama
from kquant.models.architectures.llama4 import llama4
from kquant.models.architectures.minicpm import minicpm
from kquant.models.architectures.mpt import mpt
from kquant.models.architectures.nemotron import nemotron
from kquant.models.architectures.olmo import olmo, olmo2, olmoe
from kquant.models.architectures.openelm import openelm
from kquant.models.architectures.orion import orion
from kquant.models.architectures.phi2 import phi2
from kquant.models.architectures.phi3 import phi3
from kquant.models.architectures.plamo import plamo
from kquant.models.architectures.qwen import qwen
from kquant.models.architectures.qwen2 import qwen2
from kquant.models.architectures.qwen2moe import qwen2moe
from kquant.models.architectures.qwen3 import qwen3
from kquant.models.architectures.seed_oss import seed_oss
from kquant.models.architectures.smollm3 import smollm3
from kquant.models.architectures.stablelm import stablelm
from kquant.models.architectures.starcoder2 import starcoder2
from kquant.models.graph import Graph
from kquant.models.operations import Program

__all__ = ["ARCHITECTURES"]

ARCHITECTURES: dict[str, Callable[[Graph], Program]] = {
    "arcee": arcee,
    "baichuan": baichuan,
    "bert": bert,
    "bloom": bloom,
    "chatglm": chatglm,
    "codeshell": starcoder2,
    "cohere2": cohere2,
    "command-r": command_r,
    "dbrx": dbrx,
    "deci": deci,
    "dots1": dots1,
    "ernie4_5": ernie4_5,
    "ernie4_5-moe": ernie4_5_moe,
    "exaone": qwen2,
    "exaone4": exaone4,
    "falcon": falcon,
    "gemma": gemma,
    "gemma2": gemma2,
    "gemma3": gemma3,
    "glm4": glm4,
    "gpt-oss": gpt_oss,
    "gpt2": gpt2,
    "gptneox": gptneox,
    "granite": granite,
    "granitemoe": granite,
    "grok": grok,
    "hunyuan-dense": hunyuan_dense,
    "hunyuan-moe": hunyuan_moe,
    "internlm2": internlm2,
    "jais": jais,
    "jina-bert-v2": jina_bert_v2,
    "llama": llama,
    "llama4": llama4,
    "minicpm": minicpm,
    "mistral3": llama,
    "mpt": mpt,
    "nemotron": nemotron,
    "nomic-bert": nomic_bert,
    "olmo": olmo,
    "olmo2": olmo2,
    "olmoe": olmoe,
    "openelm": openelm,
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
    "seed_oss": seed_oss,
    "smollm3": smollm3,
    "stablelm": stablelm,
    "starcoder": gpt2,
    "starcoder2": starcoder2,
    "xverse": xverse,
}
