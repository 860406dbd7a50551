"""Find the final answer in what a model wrote.

A cascade, from the surest sign to the weakest, always on the text after the closed thinking part: (1) the last
`\\boxed{...}`; (2) the last statement ("Answer: C", "the correct option is C", 答案：C, 故选C, "C is correct", C项正确); (3) a
letter that stands for itself in the last line; (4) an option named in the last line. A step that finds two answers
where one is asked for ends the search with none: the extractor never picks for the model. Tested on the labelled
outputs in `tests/tasks/data/extraction.jsonl`.

Worked example: "A and D act elsewhere. **Answer: (C)**" gives "C"; "Answer: B or C" gives `None`.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from tasks.base import Answer, Language
from tasks.language import is_refusal, is_wrong_language
from tasks.thinking import Thinking, is_looping, split_thinking

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
STATEMENT_CHARS = 300
"""How much after "Answer:" is read."""
MOST_STATEMENTS = 200
"""Only so many statements, from the end, are read: a looping text makes thousands."""

YES_NO_MAYBE: dict[Language, dict[str, tuple[str, ...]]] = {
    "en": {"yes": ("yes",), "no": ("no",), "maybe": ("maybe",)},
    "zh": {
        "是": ("是的", "是", "对"),
        "否": ("否", "不是", "不对"),
        "不确定": ("不确定", "不能确定", "无法确定", "可能"),
    },
}

BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{((?:[^{}]|\{[^{}]*+\})*+)\}")
_LATEX_STYLE = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mathsf|textrm)\s*\{([^{}]*+)\}")
_MARKUP = re.compile(r"\*\*|__|`|\$|\\[()\[\]]|</?[a-z]{1,10}>", re.IGNORECASE)
_HEADING = re.compile(r"^[ \t]*#{1,6}[ \t]+", re.MULTILINE)
_NEXT_QUESTION = re.compile(r"\n[ \t]*(?:Question|Q|Human|User|问题|题目)[ \t]*:", re.IGNORECASE)

_LINK = r"""["'”’】\])]*\s?
    (?P<verb>(?:(?:is|are|was)(?:n['’]t)?|(?:would|should|must|will|could|might)\ be)\b|(?:应该|应当|应|就)?(?:不是|不选|是|为|选择|选|有))?
    \s?(?P<mark>[:=>\-–—]*)"""
_STRONG = re.compile(
    rf"""(?:\b(?:answers?|ans|(?:correct|right|best|selected|chosen)\ (?:option|choice|letter)s?)\b|\bcorrect(?=\s?:)
        |答案|正确选项|正确的(?:选项)?|答(?=\s?:)){_LINK}""",
    re.IGNORECASE | re.VERBOSE,
)
_WEAK = re.compile(
    rf"""(?P<choose>\b(?:I|we)(?:\ ?['’]d|\ ?['’]ll|\ would|\ will)?\ (?:choose|chose|pick|select|go\ with|opt\ for|say)\b
        |(?<![不误错若如])选择?(?!项)|\bchoice\b){_LINK}""",
    re.IGNORECASE | re.VERBOSE,
)
_FILLER = re.compile(
    r"""(?:\s|["'“”‘’(\[【】)\]:*>\-–—]|\b(?:therefore|thus|clearly|probably|likely|most|definitely|either|both|option|choice|letter|the)s?\b
        |(?:选项|就是|即))*+""",
    re.IGNORECASE | re.VERBOSE,
)
_NEGATED = re.compile(r"\s*(?:not\b|n't\b|不是|不选|并非|非)", re.IGNORECASE)
_INSTEAD = re.compile(r"(?:\bbut\b|\brather\b|\bit['’]?s\b|\bit is\b|而是|而选|应选|应是|应为)", re.IGNORECASE)
_PRONOUN = re.compile(
    r"I(?=['’]|\s+(?:think|thought|would|am|believe|guess|choose|chose|do|don|cannot|can|have|will|pick|say|was|need|see)\b)"
)
_JOIN = re.compile(r"\s*(?:[,;、&+]\s*(?:and\b|or\b|和|或)?|/|and\b|or\b|和|与|及|以及|或者?)\s*", re.IGNORECASE)
_LETTER = re.compile(r"[(\[]?([A-Za-z])[)\]]?(?![A-Za-z0-9'’型超族级期类组])")
_GLUED = re.compile(r"[A-Z]{2,26}(?=\s*(?:$|[.,;:!?)\]}。\n]|选项|项))")
_RUN = r"[(\[]?[A-Za-z][)\]]?(?:\s*(?:[,;、&/]|and\b|or\b|和|与|及|或者?)+\s*[(\[]?[A-Za-z][)\]]?(?![A-Za-z0-9])){0,12}"
_IS_RIGHT = re.compile(
    rf"(?<![A-Za-z0-9_'’-])({_RUN})\s*(?:选项|项)?\s*"
    r"(?:(?:is|are)\s+(?:the\s+|both\s+|also\s+)?(?:most\s+)?(?:correct|right|best|answer)\b|(?:均|都)?(?:是|为)?正确)"
)
_ALONE = re.compile(
    rf"(?<![A-Za-z0-9_'’-])({_RUN}|[A-Z]{{2,26}})"
    r"(?=\s*$|\s*[.,;:!)。]|\s+[-–—]|\s+(?:because|since|as)\b|\s*(?:选项|项)\s*[。,.]?\s*$)"
)
_BEFORE_ALONE = re.compile(
    r"(?:^[\W_]*|[,.;:!。→]\s*|[-=]>\s*|\b(?:is|its|it['’]s|be|are|option|choice|letter|so|thus|therefore|hence|with|pick|choose|say)\s+"
    r"|为|是|即|选项|故|所以|因此)$",
    re.IGNORECASE,
)
_LISTED = re.compile(r"^\W*([A-Z])[.:)、]", re.MULTILINE)
_CONFLICT = "?"
"""A reading: letters in order, "" for none, or this where the text states two answers or one that is not offered."""


class Reply(Struct, frozen=True, kw_only=True):
    """An answer with its thinking cut off and its failings named."""

    thinking: Thinking
    final: str
    flags: tuple[str, ...]


def read_reply(answer: Answer, language: Language) -> Reply:
    """Cut off the thinking and name what is wrong: think_unclosed, think_empty, loop, empty, refusal,
    wrong_language.
    """
    thinking = split_thinking(answer.text, answer.reasoning)
    final = thinking.final.strip()
    signs = {
        "think_unclosed": thinking.state == "unclosed",
        "think_empty": thinking.state == "empty",
        "loop": is_looping(thinking.thinking) or is_looping(final),
        "empty": not final,
        "refusal": is_refusal(final),
        "wrong_language": is_wrong_language(final, language),
    }
    return Reply(thinking=thinking, final=final, flags=tuple(name for name, there in signs.items() if there))


def find_choice(final: str, options: Sequence[str], *, multiple: bool = False, stated_only: bool = False) -> str | None:
    """The chosen letter, or all of them in order ("ACD") where `multiple`; `None` when there is none or the text
    contradicts itself.

    `stated_only` is for a text that was cut off: what it happened to end with is no answer.
    """
    reader = _Reader([plain(option) for option in options], multiple)
    for part in _parts(_without_echo(plain(final), options)):
        if found := reader.read(part, stated_only):
            return None if found == _CONFLICT else found
    return None


def find_label(final: str, labels: Mapping[str, Sequence[str]]) -> str | None:
    """The label that the text decides for; `labels` maps each to its wordings. `None` when it decides for none or for
    two.
    """
    text = plain(final)
    wordings = sorted(((w, label) for label, words in labels.items() for w in words), key=lambda pair: -len(pair[0]))
    boxes = BOXED.findall(text)
    lines = [line for line in text.split("\n") if line.strip()]
    stated = [statement.rest for statement in statements(_STRONG, text)]
    for candidate in [*boxes[-1:], *stated[::-1], *lines[-1:], *lines[:1]]:
        if found := _leading_label(candidate, wordings):
            return None if found == _CONFLICT else found
    return None


def _leading_label(text: str, wordings: Sequence[tuple[str, str]]) -> str:
    """The label that a text begins with and that ends there: "No, ..." but not "No evidence"."""
    head = _FILLER.sub("", text, count=1)
    for wording, label in wordings:
        if not head.casefold().startswith(wording.casefold()):
            continue
        rest = head[len(wording) :]
        joined = _JOIN.match(rest)
        following = rest[joined.end() :].casefold() if joined and joined.group().strip() else ""
        if any(following.startswith(w.casefold()) for w, other in wordings if other != label):
            return _CONFLICT
        return label if re.match(r"\s*(?:$|[.,;:!)\]}。\-–\n])", rest) else ""
    return ""


def plain(text: str) -> str:
    """Text with full-width forms, LaTeX styles and markup folded away; line ends kept."""
    text = text.replace("<answer>", "\nAnswer: ").replace("</answer>", "\n")
    text = _LATEX_STYLE.sub(r"\1", unicodedata.normalize("NFKC", text))
    return _HEADING.sub("", _MARKUP.sub("", text))


class Statement(Struct, frozen=True):
    """What follows an "answer is"; `linked` when a verb, a colon or a new line leads to it."""

    rest: str
    linked: bool
    negated: bool


def statements(cue: re.Pattern[str], text: str) -> Iterator[Statement]:
    """The statements, with what follows on its line or, when nothing does, on the next one that is not blank."""
    for match in list(cue.finditer(text))[-MOST_STATEMENTS:]:
        line, _, below = text[match.end() : match.end() + STATEMENT_CHARS].partition("\n")
        verb = match.group("verb") or ""
        linked = bool(verb or match.group("mark") or match.groupdict().get("choose"))
        if not line.strip(" \t:\"'】)]。.") and below.strip():
            line, linked = below.strip().split("\n", 1)[0], True
        yield Statement(line, linked, verb.startswith("不") or verb.endswith("t") or _NEGATED.match(line) is not None)


def _fold(text: str) -> str:
    return " ".join(text.casefold().split()).strip(" .。")


def _parts(text: str) -> Iterator[str]:
    """A base model goes on with a question of its own: each part is read for itself, the first that answers counts."""
    start = 0
    for match in _NEXT_QUESTION.finditer(text):
        yield text[start : match.start()]
        start = match.end()
    yield text[start:]


def _without_echo(text: str, options: Sequence[str]) -> str:
    """Text without a repetition of the whole list of options."""
    listed = {
        _fold(f"{letter}{mark}{_fold(plain(option))}"): letter
        for letter, option in zip(LETTERS, options, strict=False)
        for mark in ".):、"
    }
    lines = text.split("\n")
    names = [listed.get(_fold(re.sub(r"^(\W*[A-Za-z][.):、])\s+", r"\1", line))) for line in lines]
    if len(set(names) - {None}) < len(options):
        return text
    return "\n".join(line for line, name in zip(lines, names, strict=True) if name is None)


class _Reader:
    """Reads one part of a text for one question."""

    def __init__(self, options: Sequence[str], multiple: bool) -> None:
        self.options = dict(zip(LETTERS, (_fold(option) for option in options), strict=False))
        self.longest_first = sorted(self.options, key=lambda letter: -len(self.options[letter]))
        self.multiple = multiple

    def read(self, text: str, stated_only: bool) -> str:
        """The cascade."""
        if boxes := BOXED.findall(text):
            box = boxes[-1][:STATEMENT_CHARS]
            stated = [self._statement(s) for s in statements(_STRONG, box)]
            if found := next(filter(None, stated), "") or self._value(box, named=True):
                return found
        for cue in (_STRONG, _WEAK):
            if readings := [r for s in statements(cue, text) if (r := self._statement(s))]:
                return readings[-1]
        if stated_only:
            return ""
        if readings := [r for m in _IS_RIGHT.finditer(text) if (r := self._letters(m.group(1)))]:
            return readings[-1]
        lines = [line for line in text.split("\n") if line.strip()]
        if not lines:
            return ""
        last = lines[-1][-2000:]
        if whole := self._only_text(text):
            return whole
        if _LISTED.match(last) and len(set(_LISTED.findall(text))) > 1:
            return ""  # the last of a list of comments on each option
        return self._alone(last) or self._named(last)

    def _statement(self, statement: Statement) -> str:
        if statement.negated:
            instead = _INSTEAD.search(statement.rest)
            return self._value(statement.rest[instead.end() :], named=True) if instead else ""
        return self._value(statement.rest, named=statement.linked)

    def _value(self, text: str, *, named: bool) -> str:
        head = _FILLER.sub("", text, count=1)
        if found := self._letters(head):
            return found
        return self._named(re.split(r"[.;。；!?](?=\s|$)|。", head, maxsplit=1)[0]) if named else ""

    def _only_text(self, text: str) -> str:
        """The whole text is the text of one option."""
        return next((letter for letter, option in self.options.items() if _fold(text) == option), "")

    def _letters(self, text: str) -> str:
        """The letters that a text begins with."""
        if glued := _GLUED.match(text):
            return self._checked(list(glued.group())) if set(glued.group()) <= set(self.options) else ""
        found: list[str] = []
        at = 0
        while letter := _LETTER.match(text, at):
            name = letter.group(1)
            after = letter.end()
            if (
                name.islower()
                and not re.match(r"\s*(?:$|[.,;:)\]、。])", text[after : after + 3])
                and letter.group().isalpha()
            ):
                break
            if _PRONOUN.match(text, at):
                break
            if text[after : after + 1] == "?" or (name == "X" and not found and "X" not in self.options):
                return ""
            found.append(name.upper())
            after = self._past_own_text(text, after, name.upper())
            joined = _JOIN.match(text, after) if after >= 0 else None
            if after < 0 or (joined and self._undecided(joined.group(), text, joined.end())):
                return _CONFLICT
            if joined is None and self.multiple:
                joined = re.compile(r"\s+(?=[A-Z](?![A-Za-z0-9]))").match(text, after)
            if joined is None:
                break
            at = joined.end()
        return self._checked(found)

    def _undecided(self, join: str, text: str, at: int) -> bool:
        """ "A or B", and "A/B" where one is asked for."""
        either = re.search(r"\bor\b|或", join, re.IGNORECASE) or (not self.multiple and "/" in join)
        return bool(either and _LETTER.match(text, at))

    def _checked(self, letters: list[str]) -> str:
        chosen = sorted(set(letters))
        if any(letter not in self.options for letter in chosen) or (len(chosen) > 1 and not self.multiple):
            return _CONFLICT
        return "".join(chosen)

    def _past_own_text(self, text: str, at: int, letter: str) -> int:
        """Where "B. Warfarin" ends, or `at` when no option text follows, or -1 when the text of another option does."""
        start = at + len(text[at:]) - len(text[at:].lstrip(" .):、"))
        rest = text[start:].casefold()
        own = self.options.get(letter, "")
        if own and rest.startswith(own):
            return start + len(own)
        others = {option for name, option in self.options.items() if name != letter}
        return -1 if _fold(rest.split("\n", 1)[0]) in others else at

    def _alone(self, line: str) -> str:
        """The last letter in the line that stands for itself: not an article, not part of "hepatitis B", not an initial."""
        for match in reversed(list(_ALONE.finditer(line))):
            before = line[max(0, match.start() - 24) : match.start()]
            initial = re.search(r"[.,;:]\s*$", before) and re.match(r"\.\s*\S", line[match.end() :])
            if initial or not _BEFORE_ALONE.search(before):
                continue
            if found := self._letters(line[match.start() :] if match.start() == 0 else match.group(1)):
                return found
        return ""

    def _named(self, text: str) -> str:
        """The option whose text stands in this text and is not denied; a longer option hides a shorter one inside
        it.
        """
        folded = _fold(text)
        found: list[str] = []
        for letter in self.longest_first:
            option = self.options[letter]
            left = r"(?<![a-z0-9])" if option[:1].isascii() and option[:1].isalnum() else ""
            right = r"(?![a-z0-9])" if option[-1:].isascii() and option[-1:].isalnum() else ""
            pattern = re.compile(left + re.escape(option) + right)
            for match in pattern.finditer(folded):
                if not re.search(
                    r"(?:\bnot\b[a-z ]{0,6}|不是|并非|非|不选)\s*$", folded[max(0, match.start() - 12) : match.start()]
                ):
                    found.append(letter)
            folded = pattern.sub(lambda m: "\0" * len(m.group()), folded)
        return self._checked(found) if found else ""
