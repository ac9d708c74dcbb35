"""Whether Numba can compile kernels in this process; without it NumPy carries them out."""

from __future__ import annotations

from functools import cache

from kquant.errors import OptionError

__all__ = ["jit_is_disabled"]


@cache
def jit_is_disabled() -> bool:
    """Whether Numba is told not to compile: by NUMBA_DISABLE_JIT or in its configuration.

    Raises `OptionError` if Numba cannot be loaded at all, as with a NumPy that it does not know.
    """
    try:
        import numba
    except Exception as error:
        raise OptionError(
            f"execution: Numba cannot be loaded: {type(error).__name__}: {error}; KQUANT_EXECUTION=numpy "
            "does the same without it, slowly"
        ) from error
    return bool(numba.config.DISABLE_JIT)
