"""Jinja with limits: what a chat template may call, how much it may do, and how its errors are told.

Jinja's sandbox keeps a template from Python's internals. It does not keep it from working for ever or from
filling the memory. A `Meter` does: one allowance, which grows with what the template is given, limits

* the steps: passes through loops, and calls;
* the text that is put out, also into a variable or by a macro;
* the weight of every value that a literal, an operator, a filter or a call makes: the characters and elements
  in it, counted as often as they would be printed. What can grow by multiplication (``"a" * n``, ``replace``,
  ``join``, ``%``) is weighed before it is made.

No single operation can therefore take long, and between operations the clock is looked at.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from datetime import datetime
from functools import wraps
from types import TracebackType
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from kquant._text import printable
from kquant.errors import ChatTemplateError

__all__ = ["Environment", "Meter", "render"]

FILE = "<chat template>"
ALLOWANCE = 1 << 20
SECONDS = 10.0

# those of Jinja's that chat templates use; some of the others have costs that are hard to foresee
FILTERS = (
    *("abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float", "format"),
    *("indent", "int", "items", "join", "last", "length", "list", "lower", "map", "max", "min", "reject"),
    *("rejectattr", "replace", "reverse", "round", "safe", "select", "selectattr", "sort", "string"),
    *("title", "trim", "truncate", "unique", "upper", "wordcount"),
)


def render(template: str, variables: Mapping[str, Any]) -> str:
    """The text of a template; raises `ChatTemplateError` with the template's line."""
    meter = Meter(ALLOWANCE, SECONDS)
    try:
        meter.limit += 8 * (meter.weigh(dict(variables), limit=1 << 30) + len(template))
        return Environment(meter).render(template, variables)
    except Exception as error:  # whatever goes wrong in a template that comes from a file is the file's fault
        line = (
            error.lineno if isinstance(error, jinja2.TemplateSyntaxError) else _line_of(error.__traceback__)
        )
        where = f"chat template, line {line}" if line else "chat template"
        what = "nested too deeply" if isinstance(error, RecursionError) else printable(str(error)[:300])
        raise ChatTemplateError(f"{where}: {what or type(error).__name__}") from error


class LimitError(Exception):
    """The allowance is used up."""


class Meter:
    """What a template has done and may still do.

    >>> Meter(limit=20).weigh([["ab", "cd"]] * 4)
    Traceback (most recent call last):
    ...
    kquant.runtime._templates.LimitError: a value of more than 20 characters and elements
    """

    def __init__(self, limit: int = ALLOWANCE, seconds: float = SECONDS) -> None:
        self.limit = limit
        self.seconds = seconds
        self._steps = 0
        self._deadline = time.monotonic() + seconds

    def step(self) -> None:
        """Count a pass through a loop, or a call."""
        self._steps += 1
        if self._steps > self.limit:
            raise LimitError(f"more than {self.limit:,} steps")
        if time.monotonic() > self._deadline:
            raise LimitError(f"more than {self.seconds:g} seconds")

    def steps(self, iterable: Iterable[Any]) -> Iterator[Any]:
        """The items, each of which counts as a step."""
        for item in iterable:
            self.step()
            yield item

    def output(self, n: int) -> None:
        """Raise `LimitError` for more text than is allowed."""
        if n > self.limit:
            raise LimitError(f"more than {self.limit:,} characters of text")

    def grow(self, n: int) -> None:
        """Raise `LimitError` for a value that would weigh more than is allowed."""
        if n > self.limit:
            raise LimitError(f"a value of more than {self.limit:,} characters and elements")

    def weigh(self, value: Any, limit: int | None = None) -> int:
        """The characters and elements of a value; raises `LimitError` as soon as there are too many."""
        limit, total, rest = limit or self.limit, 0, [value]
        while rest:
            item = rest.pop()
            total += 1
            if isinstance(item, (str, range)):
                total += len(item)
            elif isinstance(item, Mapping):
                rest += [*item.keys(), *item.values()]
            elif isinstance(item, (list, tuple, set, frozenset, KeysView, ValuesView, ItemsView)):
                rest += item
            if total + len(rest) > limit:
                raise LimitError(f"a value of more than {limit:,} characters and elements")
        return total

    def weighed(self, value: Any) -> Any:
        """The value, after weighing it."""
        self.weigh(value)
        return value


class Environment(ImmutableSandboxedEnvironment):
    """Jinja as Hugging Face sets it up for chat templates, with a meter.

    >>> Environment(Meter()).render("{% for x in xs %}{{ x }},{% endfor %}", {"xs": [1, 2]})
    '1,2,'
    """

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self, meter: Meter) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, GenerationTag])
        self.meter = meter
        self.concat = self._concat  # type: ignore[method-assign]
        self.filters = {
            **{name: self._metered(name, self.filters[name]) for name in FILTERS},
            "tojson": self._metered("tojson", self._to_json),
            "from_json": self._metered("from_json", json.loads),
            "_steps": meter.steps,
            "_weighed": meter.weighed,
        }
        self.globals = {
            **{name: self.globals[name] for name in ("range", "dict", "cycler", "joiner")},
            "namespace": QuietNamespace,
            "raise_exception": _raise,
            "strftime_now": _now,
        }

    def render(self, template: str, variables: Mapping[str, Any]) -> str:
        """The text; raises what Jinja raises, and `LimitError`."""
        tree = Metering().visit(self.parse(template))
        code = self.compile(tree, filename=FILE)
        pieces, n = [], 0
        for piece in jinja2.Template.from_code(self, code, dict(self.globals)).generate(variables):
            n += len(piece)
            self.meter.output(n)
            pieces.append(piece)
        return "".join(pieces)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: PYI063
        """A call, which is a step; methods of strings may not grow without limit."""
        __self.meter.step()
        method = getattr(__obj, "__wrapped__", __obj)  # the sandbox wraps `format`
        text = getattr(method, "__self__", None)
        if isinstance(text, str):
            args = tuple(list(a) if isinstance(a, Iterator) else a for a in args)
            __self._check(method.__name__, text, [*args, *kwargs.values()])
        elif isinstance(__obj, LoopContext) and args:  # a recursive loop
            args = (__self.meter.steps(args[0]), *args[1:])
        return __self.meter.weighed(super().call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """An operator, if what it makes is not too large."""
        if operator == "*":
            for one, other in ((left, right), (right, left)):
                if isinstance(one, int) and isinstance(other, (str, list, tuple)):
                    self.meter.grow(one * self.meter.weigh(other))
            if isinstance(left, int) and isinstance(right, int):
                self.meter.grow(left.bit_length() + right.bit_length())
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            self.meter.grow(left.bit_length() * right)
        elif operator == "%" and isinstance(left, str):
            self._check("format", left, [right])
        return self.meter.weighed(super().call_binop(context, operator, left, right))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """As in the sandbox, without bytes and `str.translate`, which no template needs."""
        if isinstance(obj, bytes) or (isinstance(obj, str) and attr == "translate"):
            return False
        return super().is_safe_attribute(obj, attr, value)

    def unsafe_undefined(self, obj: Any, attribute: str) -> jinja2.Undefined:
        """An error at once for Python's internals; the sandbox raises it when they are used."""
        unsafe = super().unsafe_undefined(obj, attribute)
        if attribute.startswith("_"):
            unsafe._fail_with_undefined_error()
        return unsafe

    def _concat(self, pieces: Iterable[str]) -> str:
        """Joins what a macro, or `{% set %}` with a body, has put out."""
        pieces = list(pieces)
        self.meter.output(sum(map(len, pieces)))
        return "".join(pieces)

    def _metered(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        first = 1 if hasattr(function, "jinja_pass_arg") else 0  # after Jinja's context

        @wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            self.meter.step()
            value = args[first]
            if isinstance(value, Iterator):
                value = list(self.meter.steps(value))
            self._check(name, value, [*args[first + 1 :], *kwargs.values()])
            return self.meter.weighed(function(*args[:first], value, *args[first + 1 :], **kwargs))

        return run

    def _check(self, name: str, value: Any, others: list[Any]) -> None:
        """Raise `LimitError` if a filter or method would make too much of a value that is in its limits."""
        weight = self.meter.weigh(others)
        if name in ("center", "ljust", "rjust", "zfill", "expandtabs", "indent", "round", "tojson"):
            n = max((abs(x) for x in others if isinstance(x, int)), default=0)
            lines = value.count("\n") + value.count("\t") + 1 if isinstance(value, str) else 1
            self.meter.grow(n * lines if name != "tojson" else n * self.meter.weigh(value))
        elif name == "replace" and len(others) >= 2 and isinstance(value, str):
            self.meter.grow(len(value) + (value.count(str(others[0])) + 1) * len(str(others[1])))
        elif name == "join":
            n = self.meter.weigh(value)
            self.meter.grow((n + 1) * weight if isinstance(value, str) else n * (weight + 1))
        elif name in ("format", "format_map") and isinstance(value, str):
            if re.search(r"\{[^}]*\{|%[^%a-zA-Z]*\*", value.replace("{{", "")):
                raise LimitError("a width that is computed")
            widths = sum(int(digits[:9]) for digits in re.findall(r"\d+", value))
            self.meter.grow(len(value) + widths + (value.count("%") + value.count("{")) * weight)

    def _to_json(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: int | str | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        """JSON as Hugging Face's templates expect it: nothing is escaped for HTML."""
        return json.dumps(
            value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )


class Metering(NodeTransformer):
    """Puts the meter around what a template loops over and around the values that it writes down."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        """A loop counts its steps."""
        self.generic_visit(node)
        node.iter = _filtered(node.iter, "_steps")
        return node

    def visit_literal(self, node: nodes.Node) -> nodes.Node:
        """A list, tuple or dictionary, or strings joined by ``~``, are weighed."""
        self.generic_visit(node)
        return node if getattr(node, "ctx", "load") != "load" else _filtered(node, "_weighed")

    visit_List = visit_Tuple = visit_Dict = visit_Concat = visit_literal


def _filtered(node: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


class GenerationTag(Extension):
    """``{% generation %}`` marks the assistant's text for training; here it has no effect."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """What is between the tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class QuietNamespace(Namespace):
    """A namespace whose text does not show what is in it, because nobody has weighed that."""

    def __repr__(self) -> str:
        return "<namespace>"


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _now(pattern: str) -> str:
    return datetime.now().strftime(pattern[:200])


def _line_of(traceback: TracebackType | None) -> int | None:
    """The line of the template that was last reached; Jinja has rewritten the traceback."""
    line = None
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == FILE:
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return line
