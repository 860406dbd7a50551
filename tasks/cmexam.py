"""CMExam: questions of the Chinese national medical licensing examination, five options, sometimes several right.

Source: Liu et al., NeurIPS 2023 Datasets and Benchmarks, arXiv 2306.03030; github.com/williamliujl/CMExam (Apache-2.0). 6,811 test
questions; a question counts as right when exactly the right options are named.

Asked by generation only, because a set of letters has no single likelihood.

Worked example: Question 患者，男，24岁。… , Options "A 动眼神经受损\\nB 滑车神经受损\\n…", Answer "B". "答案：B" scores 1, "答案：BC" 0.
"""

import re
from pathlib import Path

from msgspec import Struct

from tasks.base import DataError, Sample
from tasks.choice import LETTERS
from tasks.public import About, Form, Line, Question, by_letter, choice_task, layout_form, letters, read_samples

_OPTION = re.compile(r"^([A-Z])[\s.．、:：]+(.*)$", re.DOTALL)


class Choice(Struct, frozen=True):
    key: str
    value: str


class Released(Struct, frozen=True, kw_only=True):
    """A row of `test_with_annotations.csv`, or of its copy on Hugging Face, where the options are a list."""

    Question: str
    Options: str | tuple[Choice, ...]
    Answer: str | None


def options_of(text: str) -> dict[str, str]:
    """Options by letter of "A one\\nB two"; a line without a letter goes on with the option above it."""
    found: dict[str, str] = {}
    for line in text.strip().split("\n"):
        opened = _OPTION.match(line.strip())
        if opened and opened.group(1) == LETTERS[len(found)]:
            found[opened.group(1)] = opened.group(2).strip()
        elif found:
            found[max(found)] += "\n" + line.strip()
        else:
            raise DataError(f"the options begin with {line[:20]!r}, not with A")
    return found


def released(row: Released, line: Line) -> Sample:
    """A row as released."""
    named = options_of(row.Options) if isinstance(row.Options, str) else {o.key: o.value for o in row.Options}
    right = letters(row.Answer)
    return Question(question=row.Question, options=by_letter(named), right=right, multiple=len(right) > 1).sample()


def load(path: Path) -> tuple[Sample, ...]:
    """The questions of a file in one of the forms."""
    return read_samples("cmexam", path, (Form(kind=Released, sample=released), layout_form(None, multiple=True)))


CMEXAM = choice_task(
    About(
        name="cmexam",
        title="CMExam, Chinese medical licensing examination",
        language="zh",
        where_from="github.com/williamliujl/CMExam",
        licence="Apache-2.0",
        citation="Liu et al. 2023, arXiv 2306.03030",
    ),
    load,
    scorings=("generate",),
)
