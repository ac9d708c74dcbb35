"""Quantize, dequantize, requantize and run GGUF models, with the bytes of ggml.

::

    kquant.quantize(x, "Q4_K")                            rows of floats -> packed rows
    kquant.dequantize(data, "Q4_K")                       packed rows -> float32
    kquant.validate(data, "Q4_K")                         whether packed rows hold numbers alone
    kquant.QuantizedTensor                                packed rows that know their type and shape
    kquant.matmul(tensor, x)                              products on the packed rows; also `x @ tensor.T`
    kquant.matmul_many([wq, wk, wv], x)                   several products that share their activations
    kquant.PackedActivations(x)                           activations that are packed once for many products
    kquant.Pool(threads=4)                                threads of one's own, in place of the process's
    kquant.vec_dot(w, "Q4_K", a, "Q8_K")                  dot products of packed rows
    kquant.open("model.gguf")                             metadata and memory-mapped tensors of a file
    kquant.plan("model.gguf", "Q4_K_M")                   what would become of each tensor, and why
    kquant.requantize("in.gguf", "out.gguf", "Q4_K_M")    what llama-quantize does
    kquant.inspect("model.gguf")                          what a file contains, from its header
    kquant.verify("model.gguf")                           whether every block holds numbers; hashes
    kquant.compare("a.gguf", "b.gguf")                    the error of each tensor of b against a
    kquant.sweep("model.gguf")                            each tensor in each type: what it costs and loses
    kquant.LanguageModel("model.gguf")                    reads and writes text on the packed weights
    kquant.report("model.gguf")                           all of that as a page with pictures
    kquant.Tokenizer("model.gguf")                        text to token ids and back

Whatever needs NumPy or Numba is loaded when it is first used (PEP 562): importing kquant takes
milliseconds and compiles nothing.

>>> import kquant
>>> kquant.TensorType["Q4_K"].bits_per_element
4.5
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from kquant.errors import (
    ChatTemplateError,
    GGUFError,
    GGUFLimitError,
    GGUFTruncatedError,
    ImatrixError,
    InvalidDataError,
    KQuantError,
    ManifestError,
    MissingDependencyError,
    ModelError,
    NonFiniteError,
    OptionError,
    OutOfRangeError,
    OutputError,
    ShapeError,
    UnknownTypeError,
    UnsupportedTypeError,
)
from kquant.types import FileType, TensorType

if TYPE_CHECKING:
    from kquant.analysis.comparison import Comparison, compare
    from kquant.analysis.inspection import Inspection, inspect
    from kquant.analysis.manifest import Manifest
    from kquant.analysis.sweeping import Sweep, sweep
    from kquant.analysis.verification import Verification, verify
    from kquant.arrays.codec import dequantize, quantize, validate
    from kquant.arrays.tensor import QuantizedTensor
    from kquant.convert.run import requantize
    from kquant.imatrix.reading import Imatrix, load_imatrix
    from kquant.model.model import Model, open
    from kquant.parallel.pool import Pool
    from kquant.planning.planner import Plan, PlanRow, plan
    from kquant.products.activations import PackedActivations
    from kquant.products.dots import vec_dot
    from kquant.products.matrices import matmul, matmul_many
    from kquant.reporting.builder import Report, report
    from kquant.runtime.language_model import LanguageModel, Piece
    from kquant.runtime.sampling import Sampling
    from kquant.runtime.session import Session
    from kquant.tokenizers.tokenizer import Tokenizer

__all__ = [
    "ChatTemplateError",
    "Comparison",
    "FileType",
    "GGUFError",
    "GGUFLimitError",
    "GGUFTruncatedError",
    "Imatrix",
    "ImatrixError",
    "Inspection",
    "InvalidDataError",
    "KQuantError",
    "LanguageModel",
    "Manifest",
    "ManifestError",
    "MissingDependencyError",
    "Model",
    "ModelError",
    "NonFiniteError",
    "OptionError",
    "OutOfRangeError",
    "OutputError",
    "PackedActivations",
    "Piece",
    "Plan",
    "PlanRow",
    "Pool",
    "QuantizedTensor",
    "Report",
    "Sampling",
    "Session",
    "ShapeError",
    "Sweep",
    "TensorType",
    "Tokenizer",
    "UnknownTypeError",
    "UnsupportedTypeError",
    "Verification",
    "__version__",
    "compare",
    "dequantize",
    "inspect",
    "load_imatrix",
    "matmul",
    "matmul_many",
    "open",
    "plan",
    "quantize",
    "report",
    "requantize",
    "sweep",
    "validate",
    "vec_dot",
    "verify",
]

__version__ = "0.1.0"

# public name -> the module that is imported when the name is first used
_LAZY = {
    "Comparison": "kquant.analysis.comparison",
    "Imatrix": "kquant.imatrix.reading",
    "Inspection": "kquant.analysis.inspection",
    "LanguageModel": "kquant.runtime.language_model",
    "Manifest": "kquant.analysis.manifest",
    "Model": "kquant.model.model",
    "PackedActivations": "kquant.products.activations",
    "Piece": "kquant.runtime.language_model",
    "Plan": "kquant.planning.planner",
    "PlanRow": "kquant.planning.planner",
    "Pool": "kquant.parallel.pool",
    "QuantizedTensor": "kquant.arrays.tensor",
    "Report": "kquant.reporting.builder",
    "Sampling": "kquant.runtime.sampling",
    "Session": "kquant.runtime.session",
    "Sweep": "kquant.analysis.sweeping",
    "Tokenizer": "kquant.tokenizers.tokenizer",
    "Verification": "kquant.analysis.verification",
    "compare": "kquant.analysis.comparison",
    "dequantize": "kquant.arrays.codec",
    "inspect": "kquant.analysis.inspection",
    "load_imatrix": "kquant.imatrix.reading",
    "matmul": "kquant.products.matrices",
    "matmul_many": "kquant.products.matrices",
    "open": "kquant.model.model",
    "plan": "kquant.planning.planner",
    "quantize": "kquant.arrays.codec",
    "report": "kquant.reporting.builder",
    "requantize": "kquant.convert.run",
    "sweep": "kquant.analysis.sweeping",
    "validate": "kquant.arrays.codec",
    "vec_dot": "kquant.products.dots",
    "verify": "kquant.analysis.verification",
}


def __getattr__(name: str) -> Any:
    """Loads a public name when it is first used (PEP 562)."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_LAZY[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
