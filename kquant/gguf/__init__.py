"""GGUF files: a reader that trusts nothing, and a writer that knows every offset before it writes.

::

    read(path)                  a model, all shards of it: metadata, tensors, memory-mapped data
    Metadata                    key/value pairs: ordered, typed, every byte kept
    layout(metadata, specs)     header, offsets and size of a file that is to be written
    Writer(path, layout)        writes its bytes from any thread; it gets its name when it is complete

GGUF's reversed axes stay inside this package: shapes are NumPy's, the row length last, unless a name says
`ggml_shape`.
"""

from gguf import GGUFValueType

from kquant.gguf.header import Shortfall, TensorInfo
from kquant.gguf.metadata import Metadata
from kquant.gguf.reader import GGUFFile, expand_shards, read, read_shard
from kquant.gguf.shards import split_path, split_prefix
from kquant.gguf.strings import StringArray
from kquant.gguf.writer import HeaderLayout, TensorSpec, Writer, layout

__all__ = [
    "GGUFFile",
    "GGUFValueType",
    "HeaderLayout",
    "Metadata",
    "Shortfall",
    "StringArray",
    "TensorInfo",
    "TensorSpec",
    "Writer",
    "expand_shards",
    "layout",
    "read",
    "read_shard",
    "split_path",
    "split_prefix",
]
