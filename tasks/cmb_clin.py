"""CMB-Clin: Chinese teaching cases with questions on diagnosis, differential diagnosis and treatment.

Source: Wang et al., NAACL 2024, arXiv 2308.08833; github.com/FreedomIntelligence/CMB (Apache-2.0, the authors' claim over textbook cases).
74 cases, 208 questions; the questions of a case share its cluster. In the first public version some references look cut (case 5,
question 1).

The authors grade by experts and by a large language model on a rubric. Here the headline is ROUGE-L by character against the reference, a
tripwire (see `tasks.writing`), with the reference's numbers and drugs looked for literally beside it.

Worked example: case 病人，男，49岁，3小时前解大便后出现右下腹疼痛…, question
简述该病人的诊断及诊断依据。, reference 诊断：嵌顿性腹股沟斜疝合并肠梗阻。… The reference itself scores 1.
"""

from pathlib import Path

import msgspec
from msgspec import Struct

from tasks.base import DataError, Sample
from tasks.public import About, read_lines
from tasks.writing import reference_sample, writing_task

MAX_TOKENS = 768
WISH = "请根据下面的病例回答问题，语言简明，分条列出要点。\n\n"


class Pair(Struct, frozen=True, kw_only=True):
    """A question; releases call its reference `answer`, later `solution`, the layout calls it `reference`."""

    question: str
    answer: str = ""
    solution: str = ""
    reference: str = ""

    @property
    def gold(self) -> str:
        return self.reference or self.solution or self.answer


class Case(Struct, frozen=True, kw_only=True):
    """A case of the release (`description`, `QA_pairs`) or of the project's layout (`case`, `qa`)."""

    id: str | int
    title: str = ""
    description: str = ""
    case: str = ""
    QA_pairs: tuple[Pair, ...] = ()
    qa: tuple[Pair, ...] = ()


def samples_of_case(row: Case) -> tuple[Sample, ...]:
    """One sample for each question."""
    name = str(row.id) if str(row.id).startswith("cmbclin-") else f"cmbclin-{row.id}"
    text, pairs = row.case or row.description, row.qa or row.QA_pairs
    if not text.strip() or not pairs:
        raise DataError("the case is empty or has no questions")
    if any(not pair.question.strip() for pair in pairs):
        raise DataError("a question is empty")
    return tuple(
        reference_sample(
            f"{name}-{number}",
            f"{text.strip()}\n\n问题：{pair.question.strip()}",
            pair.gold,
            cluster=name,
            tags={"title": row.title},
        )
        for number, pair in enumerate(pairs, start=1)
    )


def load(path: Path) -> tuple[Sample, ...]:
    """The questions of every case of a file in either form."""
    samples: list[Sample] = []
    places: dict[str, str] = {}
    for line in read_lines(path):
        try:
            found = samples_of_case(msgspec.convert(line.value, Case))
        except (DataError, msgspec.ValidationError) as error:
            raise DataError(f"{line.where}: {error}") from None
        if found[0].cluster in places:
            raise DataError(f"{line.where}: `id` {found[0].cluster!r} stands already in {places[found[0].cluster]}")
        places[found[0].cluster] = line.where
        samples += found
    return tuple(samples)


CMB_CLIN = writing_task(
    About(
        name="cmb_clin",
        title="CMB-Clin, Chinese cases with questions",
        language="zh",
        where_from="github.com/FreedomIntelligence/CMB",
        licence="Apache-2.0",
        citation="Wang et al. 2024, arXiv 2308.08833",
    ),
    load,
    lambda sample: f"{WISH}{sample.input}\n\n回答：",
    kind="free",
    max_tokens=MAX_TOKENS,
    closed=False,
)
