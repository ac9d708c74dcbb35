"""What the tests of the kernel language share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kquant.kernels import compile as jit


@pytest.fixture(scope="module")
def compiled_here() -> Iterator[None]:
    """A test file's own kernels are compiled anew: the cache on disk is keyed by kquant's sources alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KQUANT_CACHE_DIR", "")
        patch.setattr(jit, "_ready", {})
        yield
