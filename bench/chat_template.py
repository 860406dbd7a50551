"""Renders a model's own chat template (Jinja, from its GGUF or tokenizer), which comes with the weights and is not trusted.

As transformers does: an immutable sandbox, blocks trimmed, loop controls, `raise_exception`, `strftime_now`, `tojson` without escapes.
Beyond that nothing in a template can take long or grow large: a clock is looked at on every line, every value that is made is measured,
and only the filters and methods that chat templates use exist. A template that wants more ends as a `TemplateFailure`.
"""

import json
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from time import monotonic
from types import FrameType
from typing import Any

LONGEST_SOURCE = 1 << 20
LONGEST_TEXT = 4 << 20
MOST_PARTS = 200_000
MOST_TEXT_MADE = 64 << 20
"""Characters of all values together that one rendering may make."""
LONGEST_S = 2.0

FILTERS = (
    "abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float", "indent", "int", "items", "join", "last",
    "length", "list", "lower", "map", "max", "min", "reject", "rejectattr", "replace", "reverse", "round", "safe", "select", "selectattr",
    "sort", "string", "title", "trim", "unique", "upper",
)  # fmt: skip
METHODS = {
    str: (
        "capitalize", "count", "endswith", "find", "index", "isalnum", "isalpha", "isdigit", "islower", "isspace", "isupper", "join",
        "lower", "lstrip", "removeprefix", "removesuffix", "replace", "rfind", "rsplit", "rstrip", "split", "splitlines",
        "startswith", "strip", "title", "upper",
    ),
    dict: ("get", "items", "keys", "values", "copy"),
    list: ("count", "index", "copy"),
    tuple: ("count", "index"),
}  # fmt: skip
ORDINARY = (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError)
"""What a careless template raises from Python."""


class TemplateFailure(Exception):
    """The template cannot be rendered; one sentence."""


class ChatTemplate:
    """One compiled template. Raises `TemplateFailure` when it is no template or wants what is not allowed."""

    def __init__(self, source: str, *, bos: str = "", eos: str = "") -> None:
        from jinja2 import TemplateError

        if len(source) > LONGEST_SOURCE:
            raise TemplateFailure(f"the chat template has {len(source)} characters, more than {LONGEST_SOURCE}")
        self._fixed = {"bos_token": bos, "eos_token": eos}
        self._ledger = _Ledger()
        self._lock = threading.Lock()
        try:
            self._template = _environment(self._ledger).from_string(source)
        except (TemplateError, SyntaxError, *ORDINARY) as error:
            raise TemplateFailure(f"the chat template cannot be compiled: {_first_line(error)}") from error

    def render(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = True) -> str:
        """The prompt as the model wants it."""
        from jinja2 import TemplateError

        given = {"messages": [dict(m) for m in messages], "add_generation_prompt": add_generation_prompt, "tools": None}
        with self._lock, self._ledger:
            try:
                text: str = self._template.render({**self._fixed, **given})
            except (TemplateError, *ORDINARY) as error:
                raise TemplateFailure(f"the chat template cannot be rendered: {_first_line(error)}") from error
        return text


class _Ledger:
    """What one rendering has used of its time and room; as a context it watches this thread."""

    def __enter__(self) -> None:
        self._until = monotonic() + LONGEST_S
        self._made = 0
        self._before = sys.gettrace()
        sys.settrace(self.trace)

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def trace(self, frame: FrameType, event: str, argument: object) -> Callable[..., Any] | None:
        """Every line of the template, and every call of what serves it."""
        if monotonic() > self._until:
            raise TemplateFailure(f"the chat template takes longer than {LONGEST_S:g} s")
        return self.trace if frame.f_code.co_filename == "<template>" else None

    def expect(self, characters: int) -> None:
        """Before something is made: would it be too large?"""
        if characters > LONGEST_TEXT:
            raise TemplateFailure(f"the chat template makes a value of more than {LONGEST_TEXT} characters")

    def checked(self, value: Any) -> Any:
        """After something was made: measured through and through, so that no nesting can hide its size."""
        characters, parts, todo = 0, 0, [value]
        while todo:
            item = todo.pop()
            parts += 1
            match item:
                case str():
                    characters += len(item)
                case int() if not -(1 << 64) < item < 1 << 64:
                    raise TemplateFailure("the chat template makes a number of more than 64 bits")
                case list() | tuple():
                    todo.extend(item)
                case dict():
                    todo.extend(item.keys())
                    todo.extend(item.values())
            if parts + len(todo) > MOST_PARTS:
                raise TemplateFailure(f"the chat template makes a value of more than {MOST_PARTS} parts")
        self.expect(characters)
        self._made += characters + parts
        if self._made > MOST_TEXT_MADE:
            raise TemplateFailure(f"the chat template makes more than {MOST_TEXT_MADE} characters in all")
        return value

    def collected(self, items: Iterable[Any]) -> list[Any]:
        """A generator, drained under the same measure."""
        return [self.checked(item) for item in items]

    def joined(self, parts: Iterable[Any]) -> str:
        pieces = [str(p) for p in self.collected(parts)]
        self.expect(sum(map(len, pieces)))
        return "".join(pieces)


def _environment(ledger: _Ledger) -> Any:
    from jinja2 import nodes
    from jinja2.compiler import CodeGenerator, Frame
    from jinja2.ext import Extension
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generator(CodeGenerator):
        """Sends every value that a template can build through the ledger."""

        def _checked(self, visit: Callable[[Any, Frame], None], node: nodes.Node, frame: Frame) -> None:
            self.write("environment.book.checked(")
            visit(node, frame)
            self.write(")")

        def visit_List(self, node: nodes.List, frame: Frame) -> None:
            self._checked(super().visit_List, node, frame)

        def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:
            self._checked(super().visit_Dict, node, frame)

        def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:
            if node.ctx == "load":
                self._checked(super().visit_Tuple, node, frame)
            else:
                super().visit_Tuple(node, frame)

        def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
            self.write("environment.book.joined((")
            for part in node.nodes:
                self.visit(part, frame)
                self.write(", ")
            self.write("))")

    class Generation(Extension):
        """`{% generation %}` marks what training counts; here it changes nothing."""

        tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

        def parse(self, parser: Parser) -> list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    class Environment(ImmutableSandboxedEnvironment):
        code_generator_class = Generator
        book: _Ledger
        intercepted_binops = frozenset(("+", "-", "*", "/", "//", "%", "**"))
        concat = staticmethod(ledger.joined)

        def wrap_str_format(self, value: Any) -> None:
            """No safe stand-in for `str.format`: it is not among the methods."""

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            _expect_operation(ledger, operator, left, right)
            return ledger.checked(super().call_binop(context, operator, left, right))

        def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
            _expect_call(ledger, __obj, args)
            return ledger.checked(super().call(__context, __obj, *args, **kwargs))

    environment = Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        optimized=False,
        extensions=["jinja2.ext.loopcontrols", Generation],
        finalize=ledger.checked,
    )
    environment.book = ledger
    environment.filters = {name: _measured(ledger, name, environment.filters[name]) for name in FILTERS}
    environment.filters["tojson"] = _to_json
    environment.globals = {
        "range": environment.globals["range"],
        "namespace": environment.globals["namespace"],
        "dict": dict,
        "raise_exception": _raise,
        "strftime_now": _now,
    }
    return environment


def _measured(ledger: _Ledger, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter whose arguments and result are measured; keeps the marks by which jinja2 passes its environment."""
    from functools import wraps

    @wraps(function)
    def measured(*args: Any, **kwargs: Any) -> Any:
        given = (*args, *kwargs.values())
        sizes = [len(a) for a in given if isinstance(a, str | list | tuple)] or [1]
        factors = sizes[1:] + ([abs(a) for a in given if isinstance(a, int)] if name == "indent" else [])
        ledger.expect(sizes[0] * max(factors, default=1))
        made = function(*args, **kwargs)
        return ledger.collected(made) if hasattr(made, "__next__") else ledger.checked(made)

    return measured


def _expect_operation(ledger: _Ledger, operator: str, left: Any, right: Any) -> None:
    sizes = [len(v) for v in (left, right) if isinstance(v, str | list | tuple)]
    if (operator == "%" and isinstance(left, str)) or operator == "**":
        raise TemplateFailure(f"the chat template uses `{operator}`, which is not allowed in one")
    if operator == "*" and sizes:
        ledger.expect(sizes[0] * max((abs(v) for v in (left, right) if isinstance(v, int)), default=1))
    elif sizes:
        ledger.expect(sum(sizes))


def _expect_call(ledger: _Ledger, function: Any, args: Sequence[Any]) -> None:
    """Only the methods that templates use, and `replace` and `join` only where their result stays small."""
    owner, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
    allowed = next((names for kind, names in METHODS.items() if isinstance(owner, kind)), None)
    if allowed is not None and name not in allowed:
        raise TemplateFailure(
            f"the chat template calls `{name}` of a {type(owner).__name__}, which is not allowed in one"
        )
    if not isinstance(owner, str):
        return
    if name == "replace" and len(args) >= 2:
        ledger.expect(len(owner) + (owner.count(args[0]) if args[0] else len(owner) + 1) * len(args[1]))
    if name == "join" and args and isinstance(args[0], list | tuple):
        ledger.expect(sum(len(a) for a in args[0] if isinstance(a, str)) + len(owner) * len(args[0]))


def _to_json(value: Any, indent: int | None = None, **options: Any) -> str:
    """As transformers: characters as they are, no HTML escapes."""
    return json.dumps(value, ensure_ascii=False, indent=None if indent is None else min(int(indent), 8))


def _raise(message: str) -> None:
    raise TemplateFailure(f"the chat template refuses the conversation: {str(message)[:200]}")


def _now(form: str) -> str:
    return datetime.now().strftime(form[:100])


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__} {str(error).splitlines()[0][:200] if str(error) else ''}".strip()
