"""Quantize, dequantize and requantize GGUF models, byte for byte as ggml does it.

::

    kquant.quantize(x, "Q4_K")                            rows of floats -> packed rows
    kquant.dequantize(data, "Q4_K")                       packed rows -> float32
    kquant.QuantizedTensor                                packed rows that know their type and shape
    kquant.matmul(tensor, x)                              products on the packed rows; also `x @ tensor.T`
    kquant.vec_dot(w, "Q4_K", a, "Q8_K")                  dot products of packed rows
    kquant.open("model.gguf")                             metadata and memory-mapped tensors of a file
    kquant.plan("model.gguf", "Q4_K_M")                   what would become of each tensor, and why
    kquant.requantize("in.gguf", "out.gguf", "Q4_K_M")    what llama-quantize does
    kquant.inspect("model.gguf")                          what a file holds, from its header
    kquant.verify("model.gguf")                           whether every block holds numbers; hashes
    kquant.compare("a.gguf", "b.gguf")                    how far the tensors of one are from the other's
    kquant.sweep("model.gguf")                            each tensor in each type: what it costs and loses
    kquant.report("model.gguf")                           all of that as a page with pictures

Whatever needs NumPy or Numba is loaded when it is first used (PEP 562): importing kquant takes
milliseconds and compiles nothing.

>>> import kquant
>>> kquant.TensorType["Q4_K"].bits_per_element
4.5
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from kquant.errors import (
    GGUFError,
    GGUFLimitError,
    GGUFTruncatedError,
    ImatrixError,
    InvalidDataError,
    KQuantError,
    ManifestError,
    MissingDependencyError,
    NonFiniteError,
    OptionError,
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
    from kquant.codec import dequantize, quantize
    from kquant.dot import vec_dot
    from kquant.matmul import matmul
    from kquant.model import Model, open
    from kquant.planning.imatrix import Imatrix, load_imatrix
    from kquant.planning.plan import Plan, PlanRow, plan
    from kquant.reporting.report import Report, report
    from kquant.requantize import requantize
    from kquant.tensor import QuantizedTensor

__all__ = [
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
    "Manifest",
    "ManifestError",
    "MissingDependencyError",
    "Model",
    "NonFiniteError",
    "OptionError",
    "OutputError",
    "Plan",
    "PlanRow",
    "QuantizedTensor",
    "Report",
    "ShapeError",
    "Sweep",
    "TensorType",
    "UnknownTypeError",
    "UnsupportedTypeError",
    "Verification",
    "__version__",
    "compare",
    "dequantize",
    "inspect",
    "load_imatrix",
    "matmul",
    "open",
    "plan",
    "quantize",
    "report",
    "requantize",
    "sweep",
    "vec_dot",
    "verify",
]

__version__ = "0.1.0"

# public name -> the module that is imported when the name is first used
_LAZY = {
    "Comparison": "kquant.analysis.comparison",
    "Imatrix": "kquant.planning.imatrix",
    "Inspection": "kquant.analysis.inspection",
    "Manifest": "kquant.analysis.manifest",
    "Model": "kquant.model",
    "Plan": "kquant.planning.plan",
    "PlanRow": "kquant.planning.plan",
    "QuantizedTensor": "kquant.tensor",
    "Report": "kquant.reporting.report",
    "Sweep": "kquant.analysis.sweeping",
    "Verification": "kquant.analysis.verification",
    "compare": "kquant.analysis.comparison",
    "dequantize": "kquant.codec",
    "inspect": "kquant.analysis.inspection",
    "load_imatrix": "kquant.planning.imatrix",
    "matmul": "kquant.matmul",
    "open": "kquant.model",
    "plan": "kquant.planning.plan",
    "quantize": "kquant.codec",
    "report": "kquant.reporting.report",
    "requantize": "kquant.requantize",
    "sweep": "kquant.analysis.sweeping",
    "vec_dot": "kquant.dot",
    "verify": "kquant.analysis.verification",
}


class _Package(ModuleType):
    """Loads names on first use, and keeps `kquant.matmul` and `kquant.requantize` functions.

    Importing a submodule sets it as an attribute of its package, which would hide the public
    function of the same name.
    """

    def __getattr__(self, name: str) -> Any:
        if name not in _LAZY:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        value = getattr(import_module(_LAZY[name]), name)
        setattr(self, name, value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _LAZY and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *_LAZY})


sys.modules[__name__].__class__ = _Package
