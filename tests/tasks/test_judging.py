"""What a judge is asked, how its votes count, and that the labelled statements keep their rules."""

from collections import Counter

import msgspec
import pytest

from tasks import Answer, Language
from tasks.check import label_problems
from tasks.judging import JUDGING, LABELS, NOTES, label_questions, labelled, questions, statements, verdict, vote


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_labels_that_ship_are_many_balanced_and_about_notes_that_ship(language: Language) -> None:
    rows = labelled(language)
    assert Counter(row.label for row in rows) == dict.fromkeys(LABELS, 24)
    assert list(label_problems(rows, NOTES[language].load(None))) == []


def test_the_check_finds_bad_labels() -> None:
    notes, rows = NOTES["en"].load(None), labelled("en")
    wrong = msgspec.structs.replace
    broken = [
        wrong(rows[0], note="note-en-99"),
        wrong(rows[4], label="supported"),
        wrong(rows[5], statement=rows[4].statement),
    ]
    assert list(label_problems(broken, notes)) == [
        "label-en-01a: there is no note 'note-en-99'",
        "label-en-02b: is labelled supported, and a pattern finds it contradicted",
        "label-en-02c: the statement stands there already",
        "note-en-02: its statements are supported, not_stated, not one of each",
        "only 0 of 1 contradicted statements are found by a pattern",
    ]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_statement_is_asked_once_in_each_order_of_the_options(language: Language) -> None:
    asked = label_questions(language)
    assert len(asked) == 3 * 72
    for index in range(0, len(asked), 3):
        three = asked[index : index + 3]
        assert {q.target for q in three} == {"0", "1", "2"}
        assert len({q.input for q in three}) == 1
        letters = ["ABC"[int(q.target)] for q in three]
        assert {vote(q.id, letter) for q, letter in zip(three, letters, strict=True)} == {
            labelled(language)[index // 3].label
        }


def test_a_question_shows_the_note_the_statement_and_all_options() -> None:
    (question, *_) = questions("en", "n1/0/2", "BP 120/80.", "Blood pressure was normal.")
    prompt = JUDGING["en"].prompt(question, "letters")
    context = getattr(prompt, "context", "")
    assert "BP 120/80." in context
    assert "Statement:\nBlood pressure was normal.\n" in context
    assert context.endswith("C. The note neither supports nor contradicts the statement.\nAnswer:")


def test_two_equal_votes_decide_and_three_different_ones_do_not() -> None:
    assert verdict(["supported", "contradicted", "supported"]) == "supported"
    assert verdict(["supported", "contradicted", "not_stated"]) == "undecided"
    assert verdict(["supported", None, None]) == "undecided"
    assert verdict([None, None, None]) == "error"


def test_the_same_letter_in_every_order_is_three_different_votes() -> None:
    names = [q.id for q in questions("en", "x", "note", "statement")]
    assert sorted(str(vote(name, "A")) for name in names) == sorted(LABELS)
    assert vote(names[0], None) is None


def test_statements_are_the_sentences_after_the_thinking_each_once() -> None:
    text = "<think>Maybe 5 mg. Or 10 mg.</think>\n**Summary:**\nOn apixaban 2.5 mg BD. No fever.\nNo fever.\n---\n"
    assert statements(Answer(text=text), "en") == ("On apixaban 2.5 mg BD.", "No fever.")
    assert statements(Answer(text="总结：\n患者发热；无皮疹。予头孢1g。"), "zh") == (
        "患者发热；",
        "无皮疹。",
        "予头孢1g。",
    )
    assert statements(Answer(text=""), "en") == ()
