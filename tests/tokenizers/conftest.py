"""Vocabularies that several tests use."""

from __future__ import annotations

from pathlib import Path

import pytest

import kquant
from support.vocabularies import WHOLE, unpack


@pytest.fixture(scope="session")
def vocabularies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that vocabularies are unpacked to."""
    return tmp_path_factory.mktemp("vocabularies")


@pytest.fixture(scope="session")
def tokenizers(vocabularies: Path) -> dict[str, kquant.Tokenizer]:
    """llama.cpp's vocabularies that are here as a whole."""
    return {name: kquant.Tokenizer(unpack(name, vocabularies)) for name in WHOLE}
