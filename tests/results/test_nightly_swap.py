"""Weights that changed under a name that did not."""

from pathlib import Path

import junitparser
from msgspec import structs

from results.nightly.history import Entry
from results.nightly.night import judge_night
from results.nightly.page import junit
from results.nightly.swap import swaps

OLD, NEW = "a" * 64, "b" * 64


def entry(night: str, weights: str, item: str = "", right: bool | None = None, text_hash: str = "") -> Entry:
    return Entry(
        suite="s", night=night, arm="b", block=1, run=night, deployment="d", outcome="ok", epoch=weights,
        task="t" if item else "", item=item, right=right, text_hash=text_hash, weights=weights,
    )  # fmt: skip


BEFORE = [entry("1", OLD), *(entry("1", OLD, f"q{i}", right=i < 6, text_hash="x") for i in range(8))]
AFTER = [entry("2", NEW), *(entry("2", NEW, f"q{i}", right=i < 2, text_hash="x" if i < 5 else "y") for i in range(10))]


def test_other_weights_under_the_same_name_are_told_with_what_they_did() -> None:
    (found,) = swaps([*BEFORE, *AFTER], "2")
    assert (found.since, found.before, found.after) == ("1", "a" * 12, "b" * 12)
    assert (found.compared, found.differ, found.judged, found.lost, found.gained) == (8, 3, 8, 4, 0)
    assert found.words == (
        "d: other weights than on 1 under the same name (aaaaaaaaaaaa was, bbbbbbbbbbbb is); 3 of 8 answers to the same items differ, "
        "accuracy -50.0 points on 8 (4 lost, 0 gained; McNemar mid-p 0.062)"
    )
    assert found.words in judge_night([*BEFORE, *AFTER], "s", "2", None).regressions


def test_it_is_told_on_the_night_it_happens_and_not_again() -> None:
    again = [structs.replace(e, night="3", run="3") for e in AFTER]
    assert swaps([*BEFORE, *AFTER, *again], "3") == ()
    assert swaps(BEFORE, "1") == ()


def test_the_probe_stands_apart_from_the_blocks_and_unjudged_answers_are_only_compared() -> None:
    probe = [structs.replace(e, arm="p", right=None) for e in (*BEFORE, *AFTER)]
    (found,) = swaps([*probe, BEFORE[0], AFTER[0]], "2")
    assert (found.compared, found.differ, found.judged) == (8, 3, 0)
    assert found.words.endswith("3 of 8 answers to the same items differ")
    (mixed,) = swaps([*BEFORE, *(structs.replace(e, arm="p") for e in AFTER)], "2")
    assert mixed.compared == 0
    assert mixed.words.endswith("no item was asked of both")


def test_a_suite_that_asks_for_another_model_gets_other_weights() -> None:
    meant = [structs.replace(e, asked="file:new.gguf") for e in AFTER]
    assert swaps([*BEFORE, *meant], "2") == ()


def test_an_engine_that_does_not_tell_its_weights_is_not_suspected() -> None:
    assert swaps([*BEFORE, *(structs.replace(e, weights="") for e in AFTER)], "2") == ()


def test_junit_is_well_formed_whatever_a_deployment_is_called(tmp_path: Path) -> None:
    name = 'a\x01b\ufffe<&"'
    made = [structs.replace(e, deployment=name, outcome="crashed") for e in BEFORE[:1]]
    made.append(structs.replace(made[0], task="t", load="c1", metric="load_seconds", value=1.0))
    (tmp_path / "junit.xml").write_bytes(junit(judge_night(made, "s", "1", None)))
    (suite,) = junitparser.JUnitXml.fromfile(str(tmp_path / "junit.xml"))
    assert [(c.classname, c.is_passed) for c in suite] == [('a\ufffdb\ufffd<&"', True), ("cells", False)]
