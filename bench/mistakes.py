"""What is wrong with a suite, in the words of the person who wrote it: which key of which table, what it was meant to be, what to do.

The decoder's own message speaks of its types and of places such as `$.deployments[0].settings`. Here it is taken apart and said again:
`deployment `a`, settings: unknown key `replly`; did you mean `reply`?`.
"""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

import msgspec
from msgspec.inspect import (
    DictType,
    Field,
    ListType,
    LiteralType,
    StructType,
    Type,
    UnionType,
    VarTupleType,
    type_info,
)

PLACE = re.compile(r" - at `\$(?P<path>.*)`$")
STEP = re.compile(r"\.(?P<key>[^.\[]+)|\[(?P<index>\d+)\]|(?P<some>\[\.\.\.\])")
UNKNOWN = re.compile(r"Object contains unknown field `(.*)`")
MISSING = re.compile(r"Object missing required field `(.*)`")
EXPECTED = re.compile(r"Expected `(?P<type>[^`]*)`(?P<bound> [<>]=? [-0-9.e]+)?(?:, got `(?P<got>[^`]*)`)?")
WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text in quotes",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
    "null": "nothing",
}
NAMED = {"deployments": "deployment", "tasks": "task"}


def said(error: msgspec.ValidationError, raw: Any, kind: type) -> str:
    """The sentence for what `msgspec.convert(raw, kind)` raised."""
    message = str(error)
    path = found["path"] if (found := PLACE.search(message)) else ""
    text = PLACE.sub("", message)
    place, value, wanted = _follow(path, raw, type_info(kind))
    return f"{place}: {_sentence(text, value, wanted)}" if place else _sentence(text, value, wanted)


def nearest(word: str, known: Iterable[str]) -> str:
    """What was probably meant, else all that there is; as the end of a sentence."""
    names = sorted(known)
    if close := get_close_matches(word, names, n=1):
        return f"did you mean `{close[0]}`?"
    return f"known: {', '.join(names)}"


def _sentence(text: str, value: Any, wanted: Type | None) -> str:
    if found := UNKNOWN.fullmatch(text):
        return f"unknown key `{found[1]}`; {nearest(found[1], (f.encode_name for f in _fields(wanted)))}"
    if found := MISSING.fullmatch(text):
        return f"`{found[1]}` is missing; add it"
    if text.startswith("Invalid enum value"):
        return f"`{value}` is not known; {nearest(str(value), _choices(wanted))}"
    if found := EXPECTED.fullmatch(text):
        kinds = [WORDS.get(kind, kind) for kind in found["type"].split(" | ") if kind != "null"]
        return f"{' or '.join(kinds)}{found['bound'] or ''} is expected, and it is {_shown(value)}"
    return text


def _shown(value: Any) -> str:
    match value:
        case dict():
            return "a table"
        case list() | tuple():
            return "a list"
        case bool():
            return str(value).lower()
        case str():
            return f'the text "{value[:60]}"'
    return str(value)


def _follow(path: str, value: Any, wanted: Type | None) -> tuple[str, Any, Type | None]:
    """The place in words, and the value and the type that stand there."""
    words: list[str] = []
    for step in STEP.finditer(path):
        parent = words[-1].strip("`") if words else ""
        if step["key"]:
            value = value.get(step["key"]) if isinstance(value, dict) else None
            wanted = next((f.type for f in _fields(wanted) if f.encode_name == step["key"]), None)
            words.append(f"`{step['key']}`")
            continue
        wanted = _inside(wanted, DictType if step["some"] else (VarTupleType, ListType))
        if step["some"]:
            name, value = _culprit(value, wanted)
        else:
            at = int(step["index"])
            value = value[at] if isinstance(value, list | tuple) and at < len(value) else None
            name = str(value["name"]) if isinstance(value, dict) and value.get("name") else f"number {at + 1}"
        words[-1:] = [_named(parent, name)]
    return ", ".join(words), value, wanted


def _named(parent: str, name: str) -> str:
    if parent not in NAMED:
        return f"`{parent}`, {name}"
    return f"{NAMED[parent]} {name}" if name.startswith("number ") else f"{NAMED[parent]} `{name}`"


def _culprit(table: Any, wanted: Type | None) -> tuple[str, Any]:
    """The decoder does not tell which entry of a table it stumbled over: the first that does not decode by itself."""
    cls = wanted.cls if isinstance(wanted, StructType) else str
    for name, value in table.items() if isinstance(table, dict) else ():
        try:
            msgspec.convert(value, cls)
        except msgspec.ValidationError:
            return str(name), value
    return "?", None


def _alternatives(wanted: Type | None) -> tuple[Type, ...]:
    if wanted is None:
        return ()
    return wanted.types if isinstance(wanted, UnionType) else (wanted,)


def _inside(wanted: Type | None, kinds: Any) -> Type | None:
    for one in _alternatives(wanted):
        if isinstance(one, kinds):
            return one.value_type if isinstance(one, DictType) else one.item_type
    return None


def _fields(wanted: Type | None) -> tuple[Field, ...]:
    return next((one.fields for one in _alternatives(wanted) if isinstance(one, StructType)), ())


def _choices(wanted: Type | None) -> tuple[str, ...]:
    return tuple(str(v) for one in _alternatives(wanted) if isinstance(one, LiteralType) for v in one.values)
