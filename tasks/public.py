"""Published data sets, read as they were released or in the project's JSON Lines layout, told apart by content.

A file is a JSON Lines file, one JSON document (a list of items, or an object of items by id) or a CSV table; a set names its `Form`s, and a
row is read by the first form whose keys it has. The whole file is good, or one sentence names the line that is not. Texts are
taken as they stand; only rows that are blank throughout (MEDEC's CSV ends with 328 of them) and a byte order mark are passed over.

A question that stands in a set more than once (78 of MMLU's medical test questions do) is one cluster, so that intervals count
distinct questions. Two questions are the same when question and options are, but for case and blanks; the stem alone would
not do ("Which of the following statements is false?" is asked twice with other options).
"""

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from tasks import choice
from tasks.base import DataError, Language, Sample, Scoring, Task
from tasks.read import MAX_LINE_BYTES


class Line(Struct, frozen=True):
    """One item as written, and where. `file` is the file's name without its ending: some sets tell the subject only there."""

    where: str
    file: str
    value: dict[str, Any]


class Form(Struct, frozen=True, kw_only=True):
    """One way in which a set is written. `sample` raises `DataError` (without the place) for what is wrong with a row."""

    kind: type[Struct]
    sample: Callable[[Any, Line], Sample]

    def fits(self, value: Mapping[str, Any]) -> bool:
        return all(f.encode_name in value for f in msgspec.structs.fields(self.kind) if f.required)


def read_samples(name: str, path: Path, forms: Sequence[Form], columns: Sequence[str] = ()) -> tuple[Sample, ...]:
    """Every item of a file. Items without an id are named after the set and their place, from 0. `columns`: of a CSV without a header."""
    return samples_of(name, read_lines(path, columns), forms)


def samples_of(name: str, lines: Sequence[Line], forms: Sequence[Form]) -> tuple[Sample, ...]:
    """Items as samples, each with an id of its own. Raises `DataError` naming the place."""
    samples: list[Sample] = []
    places: dict[str, str] = {}
    for index, line in enumerate(lines):
        try:
            sample = _sample(line, forms)
        except DataError as error:
            raise DataError(f"{line.where}: {error}") from None
        sample = msgspec.structs.replace(sample, id=sample.id or f"{name}-{index}")
        if sample.id in places:
            raise DataError(f"{line.where}: `id` {sample.id!r} stands already in {places[sample.id]}")
        places[sample.id] = line.where
        samples.append(sample)
    return tuple(samples)


def _sample(line: Line, forms: Sequence[Form]) -> Sample:
    form = next((form for form in forms if form.fits(line.value)), None)
    if form is None:
        known = " or ".join(
            ", ".join(f.encode_name for f in msgspec.structs.fields(form.kind) if f.required) for form in forms
        )
        raise DataError(f"the keys are {', '.join(map(str, line.value)) or 'none'}; expected {known}")
    try:
        row = msgspec.convert(line.value, form.kind, strict=False)
    except msgspec.ValidationError as error:
        raise DataError(str(error)) from None
    return form.sample(row, line)


# --- reading ---------------------------------------------------------------------------------------------------------


def read_lines(path: Path, columns: Sequence[str] = ()) -> tuple[Line, ...]:
    """The items of one file, whatever it is. Raises `DataError` naming file and line; nothing is returned half read."""
    text = _text(path)
    head = text.lstrip()[:1]
    found = _json_items(text, path) if head in ("{", "[") else _csv_items(text, path, columns)
    lines = tuple(Line(f"{path}, line {number}", path.stem, value) for number, value in found)
    if not lines:
        raise DataError(f"{path} holds no items")
    return lines


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}, line {number}: not UTF-8; convert the file to UTF-8") from error


def _json_items(text: str, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    first, _, rest = text.lstrip().partition("\n")
    try:
        value = json.loads(first)
    except ValueError:
        value = None
    if isinstance(value, dict) and (rest.strip() or not _is_table(value)):
        return _json_lines(text, path)
    return _document_items(text, path)


def _is_table(value: Mapping[str, Any]) -> bool:
    """An object of items by id, or the name of the one list of items."""
    return bool(value) and (all(isinstance(v, dict) for v in value.values()) or _only_list(value) is not None)


def _only_list(value: Mapping[str, Any]) -> list[Any] | None:
    (only,) = value.values() if len(value) == 1 else (None,)
    return only if isinstance(only, list) else None


def _json_lines(text: str, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Lines end at a newline only: some public texts hold U+2028."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            _check_size(line, f"{path}, line {number}")
            try:
                yield number, _object(json.loads(line), f"{path}, line {number}")
            except ValueError as error:
                raise DataError(f"{path}, line {number}: not one complete JSON object ({error})") from error


def _document_items(text: str, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Items of one JSON document with the line that each begins in; the key of an object of items becomes the item's `id`."""
    decoder = json.JSONDecoder()
    at = _skip(text, 0)
    is_object = text[at] == "{"
    if is_object and (inner := re.compile(r'\{\s*"[^"\\]*"\s*:\s*(?=\[)').match(text, at)):
        at, is_object = inner.end(), False
    at = _skip(text, at + 1)
    try:
        while text[at] not in "]}":
            key = None
            if is_object:
                key, at = decoder.raw_decode(text, at)
                at = _skip(text, at)
                at = _skip(text, at + 1)
            start = at
            value, at = decoder.raw_decode(text, at)
            number = text.count("\n", 0, start) + 1
            _check_size(text[start:at], f"{path}, line {number}")
            item = _object(value, f"{path}, line {number}")
            yield number, {"id": key, **item} if key is not None else item
            at = _skip(text, at)
            if text[at] == ",":
                at = _skip(text, at + 1)
    except (ValueError, IndexError) as error:
        number = text.count("\n", 0, min(at, len(text))) + 1
        raise DataError(f"{path}, line {number}: not a complete JSON document ({error})") from error


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{where}: an item is {type(value).__name__}, not an object")
    return value


def _check_size(text: str, where: str) -> None:
    if len(text.encode()) > MAX_LINE_BYTES:
        raise DataError(f"{where}: the item is longer than {MAX_LINE_BYTES:,} bytes; split it or leave it out")


def _csv_items(text: str, path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a table with the line that each begins in; rows blank throughout are passed over."""
    reader = csv.reader([line + "\n" for line in text.split("\n")], strict=True)
    names = list(columns)
    begins = 1
    try:
        for cells in reader:
            number, begins = begins, reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if not names:
                names = [cell.strip() for cell in cells]
                continue
            if len(cells) != len(names):
                raise DataError(f"{path}, line {number}: {len(cells)} columns, not {len(names)}")
            _check_size("".join(cells), f"{path}, line {number}")
            yield number, dict(zip(names, cells, strict=True))
    except csv.Error as error:
        raise DataError(f"{path}, line {begins}: not a CSV row ({error})") from error


# --- questions with options ------------------------------------------------------------------------------------------

_CHOICES = re.compile(r"\nAnswer Choices: (?=\(A\) )")


def inline_options(question: str) -> tuple[str, tuple[str, ...]]:
    """Question and options of "…\\nAnswer Choices: (A) one (B) two", as the MedXpertQA authors write every set."""
    stem, _, tail = question.partition(found.group()) if (found := _CHOICES.search(question)) else (question, "", "")
    options: list[str] = []
    for letter, following in zip(choice.LETTERS, choice.LETTERS[1:], strict=False):
        if not tail.startswith(f"({letter}) "):
            break
        end = tail.find(f" ({following}) ")
        options.append(tail[4:] if end < 0 else tail[4:end])
        tail = "" if end < 0 else tail[end + 1 :]
    return stem, tuple(options)


def by_letter(options: Mapping[str, str | None]) -> tuple[str, ...]:
    """Options given as {"A": …}: the letters must follow each other. Blank ones at the end are unused places."""
    texts = [options[letter] or "" for letter in sorted(options)]
    while texts and not texts[-1].strip():
        texts.pop()
    if "".join(sorted(options)) != choice.LETTERS[: len(options)]:
        raise DataError(f"the options are lettered {', '.join(sorted(options))}; expected A, B, C ... without a gap")
    return tuple(texts)


def letters(answer: str | None) -> tuple[int, ...]:
    """Indices of "B", "ABD" or "A, C"; empty for none. Raises `DataError` for anything else."""
    text = re.sub(r"[\s,，、;；/]", "", answer or "").upper()
    if not all(letter in choice.LETTERS for letter in text):
        raise DataError(f"the answer {answer!r} is no letter of an option")
    return tuple(choice.LETTERS.index(letter) for letter in text)


class Question(Struct, frozen=True, kw_only=True):
    """A question as every set has it, before it is a sample. `count`: how many options there must be.

    Published sets hold some questions with the same option twice (21 of MedMCQA's validation split): they are kept, since
    published levels include them, and bear the tag `flaw`.
    """

    question: str
    options: tuple[str, ...]
    right: tuple[int, ...]
    id: str = ""
    tags: dict[str, str] = {}
    count: int | None = None
    multiple: bool = False

    def sample(self) -> Sample:
        """Raises `DataError` for what is wrong with it."""
        texts = [option.strip() for option in self.options]
        repeated = all(texts) and len(set(texts)) < len(texts)
        options = [f"{i} {text}" for i, text in enumerate(texts)] if repeated else texts
        if problem := choice.complaint(self.question, options, self.right, self.count):
            raise DataError(problem)
        if len(self.right) > 1 and not self.multiple:
            raise DataError(f"{len(self.right)} right answers where one is asked for")
        tags = {**self.tags, "flaw": "two options are the same" if repeated else ""}
        return Sample(
            id=self.id,
            input=self.question,
            options=self.options,
            target=",".join(map(str, sorted(self.right))),
            tags={key: value for key, value in tags.items() if value},
            extra={"multiple": True} if self.multiple else {},
        )


class Layout(Struct, frozen=True, kw_only=True):
    """A question in the project's JSON Lines layout."""

    id: str | int
    question: str
    options: dict[str, str]
    answer: str
    subject: str = ""


def layout_form(count: int | None, multiple: bool = False) -> Form:
    """The JSON Lines layout of question sets."""

    def sample(row: Layout, line: Line) -> Sample:
        several = multiple and len(letters(row.answer)) > 1
        return Question(
            id=str(row.id), question=row.question, options=by_letter(row.options), right=letters(row.answer), count=count,
            tags={"subject": row.subject}, multiple=several,
        ).sample()  # fmt: skip

    return Form(kind=Layout, sample=sample)


class Inline(Struct, frozen=True, kw_only=True):
    """A question as the MedXpertQA repository keeps other sets (`eval/data/*/input`): the options inside the question."""

    question: str
    label: tuple[str, ...]
    id: str = ""
    subject: str = ""
    subject_name: str | None = None


def inline_form(count: int | None) -> Form:
    """Sets as kept in the MedXpertQA repository."""

    def sample(row: Inline, line: Line) -> Sample:
        stem, options = inline_options(row.question)
        return Question(
            id=row.id, question=stem, options=options, right=letters("".join(row.label)), count=count,
            tags={"subject": row.subject or row.subject_name or ""},
        ).sample()  # fmt: skip

    return Form(kind=Inline, sample=sample)


def clustered(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """The same question asked again gets the cluster of its first place."""
    first: dict[tuple[str, ...], str] = {}
    return tuple(
        msgspec.structs.replace(
            sample, cluster=first.setdefault((_fold(sample.input), *sorted(map(_fold, sample.options))), sample.id)
        )
        for sample in samples
    )


def _fold(text: str) -> str:
    return " ".join(text.casefold().split())


class About(Struct, frozen=True, kw_only=True):
    """What a set says of itself."""

    name: str
    title: str
    language: Language
    where_from: str
    licence: str
    citation: str


ALL_SCORINGS: tuple[Scoring, ...] = ("likelihood", "letters", "generate")


def choice_task(
    about: About, load: Callable[[Path], Sequence[Sample]], scorings: Sequence[Scoring] = ALL_SCORINGS
) -> Task:
    """A multiple-choice set. `load` gets the path that the suite names; the same question asked twice becomes one cluster."""
    return Task(
        name=about.name,
        version=1,
        title=about.title,
        language=about.language,
        kind="choice",
        metric=choice.METRICS[scorings[0]],
        metrics=choice.METRICS,
        scorings=tuple(scorings),
        max_tokens=choice.MAX_TOKENS,
        source=about.where_from,
        licence=about.licence,
        citation=about.citation,
        public=True,
        load=partial(_load_choice, about, load),
        prompt=partial(choice.prompt, about.language),
        score=partial(choice.score, about.language),
    )


def _load_choice(about: About, load: Callable[[Path], Sequence[Sample]], path: Path | None) -> tuple[Sample, ...]:
    return clustered(load(given(about, path)))


def given(about: About, path: Path | None) -> Path:
    """The path that the suite names. Raises `DataError` where it names none: nothing public is shipped."""
    if path is None:
        raise DataError(
            f"{about.name} is not shipped with Bedside; get it from {about.where_from} and name the file in the suite: "
            f'`[tasks.{about.name}]` with `data = "PATH"` (docs/public-data.md says how)'
        )
    return path


def files_in(path: Path, names: Sequence[str]) -> tuple[Path, ...]:
    """A file itself; of a folder the files of these names that are there, in this order. Raises `DataError` for none."""
    if not path.is_dir():
        return (path,)
    found = tuple(path / name for name in names if (path / name).is_file())
    if not found:
        raise DataError(f"{path} holds none of {', '.join(names)}")
    return found
