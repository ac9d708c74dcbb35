"""Models whose names are not what names should be."""

from __future__ import annotations

from pathlib import Path

from kquant.gguf import GGUFValueType, Metadata, TensorSpec, Writer, layout
from support.small_models import heavy_tailed, packed

SCRIPT = "</script><script>window.hacked = 1</script>"
IMAGE = "\"'><img src=x onerror='window.hacked = 1'>"
NAMES = [
    f"blk.0.{SCRIPT}.weight",
    f"blk.0.{IMAGE}.weight",
    "blk.1.{{ 7 * 7 }}{% raw %}.weight",
    "blk.1.<!-- </style> \u202e \u2028 &amp; \\u003c.weight",
    SCRIPT,
]


def write_hostile(path: Path, type_name: str = "F16") -> Path:
    """A model that would run a script if any of its texts were treated as HTML."""
    metadata = Metadata()
    for key, value in {
        "general.architecture": "<b>llama</b>",
        "general.name": SCRIPT,
        f"kquant.{SCRIPT}": IMAGE,
    }.items():
        metadata.set(key, value, GGUFValueType.STRING)
    data, tensor_type = packed(heavy_tailed(4, 256), type_name)
    specs = [TensorSpec(name, (256, 4), tensor_type) for name in NAMES]
    with Writer(path, layout(metadata, specs)) as writer:
        for index in range(len(specs)):
            writer.write(index, 0, data)
        writer.commit()
    return path
