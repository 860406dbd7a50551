"""Small parts of the report: words, numbers, lines over time, examples, labels, spreads."""

import re
import string
from pathlib import Path

import numpy as np
import pytest
from made_records import ENGINE, GPU_METER, GUESS, Run, ticks
from made_run import Made, steps, write_run

from results.cost import Inputs
from results.records import Scored
from results.report import formats, words
from results.report.charts import Strip, Whisker, forest, over_time, swings
from results.report.examples import cut
from results.report.figures import Dot, Scatter, scatter
from results.report.formats import GAP
from results.report.gather import SHARE, _positions, _tags, read_cells
from results.report.phrases import RULES_ZH, rule_title, sentence
from results.report.pricing import band_of, spread_of
from results.report.series import POINTS, Line, timeline_of
from results.report.svg import Box, element, place_labels, text
from results.report.words import EN, speaker
from results.report.words_zh import ZH
from results.store import RunDir, StoreError
from results.validity import RULES
from results.views import read_cell


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def test_every_text_is_there_in_both_languages_with_the_same_values() -> None:
    assert set(EN) == set(ZH)
    assert {k: fields(v) for k, v in EN.items()} == {k: fields(v) for k, v in ZH.items()}
    assert all(ZH.values())


def test_a_text_that_is_not_there_is_a_mistake_of_ours() -> None:
    with pytest.raises(KeyError):
        speaker("en")("no such text")


def test_every_rule_has_a_chinese_title() -> None:
    assert {r.id for r in RULES} == set(RULES_ZH)
    assert rule_title("C4", "steady speed", "en") == "steady speed"


@pytest.mark.parametrize(
    ("english", "chinese"),
    [
        ("p95 needs 130 values, 12 were seen", "p95 需要 130 个值，只有 12 个"),
        ("the step was never started: oom, signal 9", "该步骤从未开始：内存不足 信号 9"),
        (
            "C8: 253.2 tokens/s is more than memory bandwidth allows (180.0): a count is wrong",
            "C8：253.2 token/s 超过内存带宽所允许的 180.0：计数有误",
        ),
        ("nothing was judged | no answer was correct", "未作任何评分；没有正确的回答"),
        ("a sentence of the future", "a sentence of the future"),
        ("", ""),
    ],
)
def test_sentences_of_the_rules_in_chinese(english: str, chinese: str) -> None:
    assert sentence(english, "zh") == chinese
    assert sentence(english, "en") == english


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (0, "0"),
        (0.0041523, "0.00415"),
        (1.0, "1.00"),
        (999.6, "1,000"),
        (1234567.0, "1,230,000"),
        (-2.345, "-2.35"),
        (1e-9, "1.00e-09"),
        (float("inf"), "–"),
    ],
)
def test_three_significant_digits(value: float | None, shown: str) -> None:
    assert formats.significant(value) == shown


def test_units_fit_the_size() -> None:
    assert formats.gib(2**30 * 1.5) == f"1.50{GAP}GiB"
    assert formats.gib(1000) == f"0.000954{GAP}MiB"
    assert formats.milliseconds(12_345) == f"12.3{GAP}s"
    assert formats.seconds(90) == f"90.0{GAP}s"
    assert formats.seconds(600) == f"10.0{GAP}min"
    assert formats.seconds(7300) == f"2.03{GAP}h"
    assert formats.percent(0.4567) == f"45.7{GAP}%"
    assert formats.points(-0.021) == "-2.1"
    assert formats.trimmed(0.004) == "0.004"
    assert formats.trimmed(1500.0) == "1,500"


def test_a_share_of_draws_is_never_certain() -> None:
    assert formats.probability(1.0) == f">{GAP}99{GAP}%"
    assert formats.probability(0.0) == f"<{GAP}1{GAP}%"
    assert formats.probability(None) == "–"


def test_ticks_are_round_and_inside() -> None:
    assert formats.ticks(0.0, 1.0) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert formats.ticks(3.0, 3.0) == [3.0]
    assert formats.log_ticks(0.9, 120.0)[:3] == [1, 3, 10]
    assert all(0.011 <= v <= 0.019 for v in formats.log_ticks(0.011, 0.019))


def test_text_and_values_are_escaped_in_drawings() -> None:
    assert text("<a&b>", 1.0, 2.0) == '<text x="1" y="2" class="t">&lt;a&amp;b&gt;</text>'
    assert element("g", class_='"x"', data_row=None) == '<g class="&quot;x&quot;"/>'


def test_labels_keep_off_markers_and_each_other() -> None:
    frame = Box(0, 0, 400, 200)
    spots = [(100.0, 100.0, "one"), (104.0, 102.0, "two"), (108.0, 98.0, "three")]
    marks = [Box(x - 5, y - 5, 10, 10) for x, y, _ in spots]
    placed = [b for b in place_labels(spots, frame, marks, []) if b is not None]
    assert len(placed) == 3
    assert not any(a.meets(b) for i, a in enumerate(placed) for b in [*placed[i + 1 :], *marks])


def test_a_label_without_room_is_left_out() -> None:
    assert place_labels([(5.0, 5.0, "a long name")], Box(0, 0, 20, 10), [], []) == [None]


def test_a_label_stands_nearer_to_its_own_dot_than_to_another() -> None:
    frame = Box(0, 0, 400, 300)
    spots = [(100.0, 150.0, "one"), (118.0, 128.0, "two")]
    marks = [Box(x - 5, y - 5, 10, 10) for x, y, _ in spots]
    one, two = place_labels(spots, frame, marks, [])
    assert one is not None
    assert two is not None
    assert one.distance((100.0, 150.0)) < one.distance((118.0, 128.0))
    assert two.distance((118.0, 128.0)) < two.distance((100.0, 150.0))


def dot(**values: object) -> Dot:
    return Dot(**({"anchor": "row-1", "label": "a", "note": "n", "x": 1.0, "y": 0.5} | values))  # type: ignore[arg-type]


def chart(*dots: Dot, **values: object) -> str:
    given = {"title": "t", "x_label": "x", "y_label": "y", "x_format": formats.trimmed, "y_format": formats.percent}
    return scatter(Scatter(dots=dots, **(given | values)))  # type: ignore[arg-type]


def test_kinds_of_points_are_drawn_apart() -> None:
    drawn = chart(
        dot(),
        dot(kind="estimated", x=2.0),
        dot(kind="invalid", x=3.0),
        dot(kind="published", x=4.0),
        dot(kind="predicted", x=5.0),
    )
    assert all(f"dot {kind} " in drawn for kind in ("measured", "estimated", "invalid", "published", "predicted"))
    assert drawn.count("<circle") == 3
    assert drawn.count("<rect") == 1


def test_the_frontier_is_a_staircase_to_the_dear_end() -> None:
    drawn = chart(dot(), dot(x=2.0, y=0.7), frontier=((1.0, 0.5), (2.0, 0.7)))
    corner = drawn.partition('class="frontier"')[0].rpartition('d="')[2].split('"')[0]
    assert corner.count("L") == 3


def test_a_chart_without_points_is_empty() -> None:
    assert chart() == ""
    assert forest("t", [], formats.percent) == ""
    assert swings("t", [], 1.0, formats.trimmed) == ""
    assert over_time("t", [], [], 10.0, formats.trimmed, "W", lambda m: m.name) == ""


def test_one_point_of_value_zero_can_be_drawn() -> None:
    assert "<circle" in chart(dot(x=0.0, y=0.0, y_lo=0.0, y_hi=0.0))
    assert "<circle" in forest(
        "t", [Strip(name="s", whiskers=(Whisker(anchor="r", note="", value=0.0, lo=None, hi=None),))], formats.percent
    )
    assert "<path" in over_time(
        "t", [Line(name="l", times_s=(0.0, 1.0), values=(0.0, 0.0))], [], 1.0, formats.trimmed, "W", lambda m: m.name
    )


def timeline(run: Run):  # type: ignore[no-untyped-def]
    from made_records import manifest

    facts = run.cell_facts()
    return timeline_of(read_cell(manifest(cell=facts), facts, run.events(), run.telemetry, run.scores))


def test_lines_over_time_are_thin_and_say_what_is_estimated() -> None:
    run = Run()
    run.telemetry = [*ticks(GUESS, 0, 100, power_w=20.0, power_low_w=10.0, power_high_w=30.0)]
    found = timeline(run)
    (line,) = found.power
    assert line.estimated
    assert len(line.values) <= POINTS
    assert (set(line.values), set(line.low), set(line.high)) == ({20.0}, {10.0}, {30.0})
    assert found.seconds == 100.0


def test_power_is_the_slope_of_a_counter_where_only_that_was_read() -> None:
    run = Run()
    run.engine = ENGINE
    run.telemetry = [*ticks(GPU_METER, 0, 100, energy_j=lambda t: 300.0 * t)]
    (line,) = timeline(run).power
    assert not line.estimated
    assert {round(v) for v in line.values if v is not None} == {300}


def test_a_hole_in_the_readings_breaks_the_line() -> None:
    run = Run()
    run.telemetry = [*ticks(GUESS, 0, 40, power_w=20.0), *ticks(GUESS, 60, 100, power_w=20.0)]
    (line,) = timeline(run).power
    assert line.values.count(None) == 1
    slow = Run()
    slow.telemetry = [*ticks(GUESS, 0, 100, every_ms=2000, power_w=20.0)]
    assert timeline(slow).power[0].values.count(None) == 0


def test_steps_idle_windows_and_loading_are_marked() -> None:
    kinds = [(m.kind, round(m.start_s), round(m.end_s)) for m in timeline(Run()).marks]
    assert ("idle", 0, 5) in kinds
    assert ("load", 6, 7) in kinds
    assert ("warmup", 8, 9) in kinds
    assert ("step", 10, 20) in kinds
    assert ("idle", 20, 26) in kinds or ("idle", 21, 26) in kinds


def test_a_cell_without_telemetry_has_no_lines() -> None:
    run = Run()
    run.telemetry = []
    assert timeline(run) is None


def scored(i: int, value: float | None, **other: object) -> Scored:
    values: dict[str, object] = {
        "step": "s", "sample": f"q{i}", "value": value, "cluster": f"q{i}", "scorer": "t/1",
        "verdict": "error" if value is None else "correct" if value == 1 else "wrong",
    }  # fmt: skip
    return Scored(**(values | other))  # type: ignore[arg-type]


def test_accuracy_by_tag_leaves_out_errors_and_tags_that_tell_nothing() -> None:
    scores = [scored(i, float(i % 2), tags={"field": "ab"[i // 4], "id": str(i), "same": "x"}) for i in range(8)]
    found = {
        (s.tag, s.value): (s.interval.value, s.interval.n)
        for s in _tags([*scores, scored(9, None, tags={"field": "a"})], early=False)
    }
    assert found[("field", "a")] == (0.5, 4)
    assert found[("field", "b")] == (0.5, 4)
    assert not any(tag == "same" for tag, _ in found)


def test_cells_read_by_several_processes_are_those_read_by_one(tmp_path: Path) -> None:
    cells = tuple(Made(name=f"m{i}", quantisation="Q4_0", bits=4.5) for i in range(2 * SHARE + 1))
    run = RunDir(write_run(tmp_path, "many", cells, steps(items=6, notes=0)))
    alone = read_cells(run, run.manifest(), 1)
    assert [c.facts.id for c in alone] == [c.id for c in run.manifest().cells]
    assert read_cells(run, run.manifest(), 2) == alone


def test_what_cannot_be_read_is_one_sentence_from_another_process_too(tmp_path: Path) -> None:
    cells = tuple(Made(name=f"m{i}", quantisation="Q4_0", bits=4.5) for i in range(SHARE + 1))
    run = RunDir(write_run(tmp_path, "many", cells, steps(items=6, notes=0)))
    broken = run.cell(run.manifest().cells[-1].id).path / "scores.jsonl"
    broken.write_bytes(broken.read_bytes().replace(b"{", b"[", 1))
    with pytest.raises(StoreError, match=r"scores\.jsonl, line 1: not a record"):
        read_cells(run, run.manifest(), 2)


def test_position_counts_recalls_and_choices() -> None:
    scores = [
        scored(0, 1.0, target="0", answer="A"),
        scored(1, 0.0, target="0", answer="B"),
        scored(2, 1.0, target="1", answer="B"),
        scored(3, 0.0, target="1", answer=None, verdict="no_answer"),
        scored(4, 0.0, target="0,2", answer="AB"),
    ]
    found = [(p.letter, p.right, p.recalled, p.chosen, p.answers) for p in _positions(scores)]
    assert found == [("A", 2, 1, 1, 3), ("B", 2, 1, 2, 3)]


def test_a_long_text_keeps_its_ends() -> None:
    assert cut("short", 10) == "short"
    assert cut(None, 10) is None
    shown = cut("a" * 100 + "z" * 100, 30)
    assert shown == "a" * 20 + "\n[… 170 characters …]\n" + "z" * 10


def test_what_costs_share_is_told_from_what_sets_them_apart() -> None:
    generator = np.random.default_rng(0)
    shared = np.exp(generator.normal(0, 0.5, 4000))
    cost = np.stack([2.0 * shared, 3.0 * shared * np.exp(generator.normal(0, 0.01, 4000))])
    spread = spread_of(["a", "b"], cost)
    assert spread.low is not None
    assert spread.low == pytest.approx(np.exp(-0.98), rel=0.1)
    low, high = spread.own["b"]
    assert 0.98 < low < 1 < high < 1.02


def test_a_cost_that_is_not_known_in_every_draw_is_no_part_of_the_spread() -> None:
    cost = np.array([[1.0, np.nan], [1.0, 2.0]])
    assert list(spread_of(["a", "b"], cost).own) == ["b"]
    assert spread_of(["a"], cost[:1]).low is None


def test_the_band_follows_the_frontier() -> None:
    cost = np.tile([[1.0], [2.0]], 100)
    accuracy = np.tile([[0.4], [0.6]], 100)
    band = band_of(cost, accuracy)
    assert band[0][1:] == (0.4, 0.4)
    assert band[-1][1:] == (0.6, 0.6)
    assert band_of(cost[:1], accuracy[:1]) == ()


def test_no_text_is_kept_that_nobody_says() -> None:
    """Keys made from a part (`x_` and an axis) are known by their beginning."""
    folder = Path(words.__file__).parent
    sources = [*folder.glob("*.py"), *folder.glob("templates/*.j2")]
    said = "".join(p.read_text(encoding="utf-8") for p in sources if not p.name.startswith("words"))
    begins = {m for m in re.findall(r"[\"']([a-z]+_)[\"'] \+", said)} | set(re.findall(r"f\"([a-z]+_)\{", said))
    unsaid = [
        k for k in EN if f'"{k}"' not in said and f"'{k}'" not in said and k.partition("_")[0] + "_" not in begins
    ]
    assert unsaid == []


def test_every_input_of_a_cost_has_its_name_in_both_languages() -> None:
    names = {f"drive_{name}" for name in (*Inputs.__struct_fields__, "speed")}
    assert names <= EN.keys()
    assert names <= ZH.keys()
