"""Every error that kquant raises on purpose.

::

    KQuantError
    ├── UnknownTypeError        no tensor type or file type of that name or id     (also LookupError)
    ├── UnsupportedTypeError    a type that exists, but not for what was asked      (also NotImplementedError)
    ├── ShapeError              a row length, byte count or shape that cannot be    (also ValueError)
    ├── NonFiniteError          NaN or infinity where a number is needed            (also ValueError)
    │   └── OutOfRangeError     a finite number that a type cannot hold
    ├── InvalidDataError        packed blocks that ggml_validate_row_data refuses   (also ValueError)
    ├── GGUFError               a file that is not valid GGUF                       (also ValueError)
    │   ├── GGUFTruncatedError  it ends before what its header promises
    │   └── GGUFLimitError      a count, length or nesting beyond kquant's limits
    ├── ImatrixError            an importance matrix that cannot be read or does not fit   (also ValueError)
    ├── ModelError              a file that cannot be run, such as one without a tensor  (also ValueError)
    ├── ManifestError           a file that is no manifest of hashes                (also ValueError)
    ├── OptionError             options that contradict each other or the model     (also ValueError)
    ├── ChatTemplateError       a chat template that cannot be rendered             (also ValueError)
    ├── MissingDependencyError  an optional package that is not installed           (also ImportError)
    └── OutputError             the result cannot be written                        (also OSError)

A message says what was expected, what was found and where.  The library raises; only the
command prints.

>>> from kquant.errors import KQuantError, ShapeError
>>> issubclass(ShapeError, KQuantError) and issubclass(ShapeError, ValueError)
True
"""

__all__ = [
    "ChatTemplateError",
    "GGUFError",
    "GGUFLimitError",
    "GGUFTruncatedError",
    "ImatrixError",
    "InvalidDataError",
    "KQuantError",
    "ManifestError",
    "MissingDependencyError",
    "ModelError",
    "NonFiniteError",
    "OptionError",
    "OutOfRangeError",
    "OutputError",
    "ShapeError",
    "UnknownTypeError",
    "UnsupportedTypeError",
]


class KQuantError(Exception):
    """The root of kquant's errors."""


class UnknownTypeError(KQuantError, LookupError):
    """There is no tensor type or file type of that name or id."""


class UnsupportedTypeError(KQuantError, NotImplementedError):
    """A type of tensor, file or vocabulary exists in llama.cpp, but kquant has nothing for what was asked."""


class ShapeError(KQuantError, ValueError):
    """A row length, byte count or shape does not fit the tensor type."""


class NonFiniteError(KQuantError, ValueError):
    """NaN or infinity in values or importance weights that must be finite."""


class OutOfRangeError(NonFiniteError):
    """A finite number is beyond what a tensor type can hold: its block would unpack to NaN or infinity."""


class InvalidDataError(KQuantError, ValueError):
    """Packed blocks hold a scale that is NaN or infinite."""


class GGUFError(KQuantError, ValueError):
    """The file is not valid GGUF."""


class GGUFTruncatedError(GGUFError):
    """The file ends before what its header promises."""


class GGUFLimitError(GGUFError):
    """A count, length or nesting depth is beyond the limits that protect memory."""


class ImatrixError(KQuantError, ValueError):
    """An importance matrix cannot be read, or does not fit the model."""


class ManifestError(KQuantError, ValueError):
    """A file of hashes to verify against is not one that kquant wrote."""


class ModelError(KQuantError, ValueError):
    """A file cannot be run: its architecture, hyperparameters or tensors are not those of a known model."""


class ChatTemplateError(KQuantError, ValueError):
    """A chat template is not valid, refuses the messages, or does what a template may not."""


class MissingDependencyError(KQuantError, ImportError):
    """An optional package is needed and not installed."""


class OptionError(KQuantError, ValueError):
    """Options contradict each other or the model."""


class OutputError(KQuantError, OSError):
    """The result cannot be written: no space, no permission, the target is an input or an original."""
