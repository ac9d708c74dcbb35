"""Which instruction set kernels are compiled for: decided once per process, when this is imported.

The environment variable `KQUANT_ISA` says it:

* `native`, the default: the best of those below that LLVM says the processor has;
* `vnni`: AVX-512 with VNNI, which multiplies and adds bytes in fours;
* `avx2`: AVX2, which does so in pairs.  LLVM uses no AVX-512 then, either;
* `portable`: no operation of `dots` and `moves` at all, as on ARM; LLVM still uses what the processor has;
* `vnni-model`, `avx2-model`: the same lowerings as without the suffix, with each operation replaced by plain
  LLVM IR of the same meaning.  They run on any processor, slowly, and give the same bits: for tests.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from numba.core.registry import cpu_target

from kquant.errors import OptionError
from kquant.kernels.lowering.isa import tuning
from kquant.kernels.lowering.isa.tuning import Tuning

__all__ = ["CHOICE", "VARIABLE", "Choice", "decide"]

VARIABLE = "KQUANT_ISA"
NEEDED = {"vnni": ("avx512bw", "avx512vnni"), "avx2": ("avx2",), "portable": ()}
"""Instruction sets, the best first, and LLVM's names of the features that each needs."""
MODELS = ("vnni-model", "avx2-model")


@dataclass(frozen=True)
class Choice:
    """An instruction set, and what else decides the machine code of a kernel."""

    name: str
    """One of `NEEDED`."""
    is_model: bool
    """Whether operations are replaced by plain LLVM IR."""
    features: str
    """What LLVM may use, as it writes it: "+avx2,-sse4a,..."."""
    is_limited: bool
    """Whether that is less than Numba lets it use for everybody else."""
    tuning: Tuning

    def has(self, *features: str) -> bool:
        """Whether LLVM may use all of these."""
        return _names(self.features).issuperset(features)


def _names(features: str) -> frozenset[str]:
    return frozenset(name[1:] for name in features.split(",") if name.startswith("+"))


def decide(asked: str, processor: str, features: str) -> Choice:
    """The choice for one of the names above, for LLVM's name of a processor and its list "+avx2,-sse4a,...".

    Raises `OptionError` if there is no such instruction set, and if the processor lacks it.

    >>> decide("native", "haswell", "+avx,+avx2,-avx512f").name
    'avx2'
    >>> decide("vnni-model", "haswell", "+avx,+avx2,-avx512f").is_model
    True
    """
    present = [name for name, needed in NEEDED.items() if _names(features).issuperset(needed)]
    known = ("native", *NEEDED, *MODELS)
    if asked not in known:
        raise OptionError(f"{VARIABLE}: expected one of {', '.join(known)}, got {asked!r}")
    name = present[0] if asked == "native" else asked.removesuffix("-model")
    if asked not in MODELS and name not in present:
        raise OptionError(
            f"{VARIABLE}: expected one that this processor has ({', '.join(['native', *present])}) "
            f"or one that runs on any ({', '.join(MODELS)}), got {asked!r}"
        )
    allowed = features
    if asked == "avx2":
        names = features.split(",")
        allowed = ",".join("-" + f[1:] if f.startswith(("+avx512", "+avx10")) else f for f in names)
    return Choice(name, asked in MODELS, allowed, allowed != features, tuning.of_processor(processor))


def _decided() -> Choice:
    _, processor, features = cpu_target.target_context.codegen().magic_tuple()  # what Numba compiles for
    return decide(os.environ.get(VARIABLE) or "native", processor, features)


CHOICE = _decided()
