"""The report of small runs made by hand: what is written, what is said, what stays out of it."""

import csv
import re
import stat
from pathlib import Path

import made_run
import numpy as np
import pytest
from made_run import LADDER, TROUBLED, Made, steps, write_run
from msgspec import structs

from results.cost import EXAMPLES
from results.records import MemoryProbed, MemoryTrial
from results.report import write_report
from results.report.build import Report, as_cheap, build
from results.report.differences import chance_alike
from results.report.drawn import curves
from results.report.gather import gather
from results.report.lacking import lacking
from results.report.markdown import markdown
from results.report.page import html
from results.report.plots import curve_chart
from results.report.pricing import tariffs_of
from results.report.saying import SIGNIFICANT, badges, of_all, of_task
from results.report.table import table_of
from results.report.words import EN, speaker
from results.report.words_zh import ZH
from results.rows import CONTRACT, read_rows
from results.stats import Item
from results.store import Lines, RunDir, StoreError

FILES = ["curve.png", "curve.svg", "report.html", "report.md", "rows.csv"]


def report_of(*runs: Path) -> Report:
    gathered = gather(list(runs))
    return build(gathered, tariffs_of(gathered, None))


def said(report: Report, group: int = 0) -> dict[str, str]:
    return {s.lead: s.text for s in of_task(report.groups[group], speaker("en"))}


def test_five_files_are_written_for_the_user_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    page = write_report([write_run(tmp_path)], out, None, "en")
    assert page == out / "report.html"
    assert sorted(p.name for p in out.iterdir()) == FILES
    assert {stat.S_IMODE(p.stat().st_mode) for p in out.iterdir()} == {0o600}
    rows = read_rows(out / "rows.csv")
    assert len(rows) == 15
    assert all(r.cost_per_1k_samples and r.cost_per_1k_samples_lo and r.currency == "USD" for r in rows)
    with (out / "rows.csv").open(encoding="utf-8") as file:
        assert next(csv.reader(file))[: len(CONTRACT)] == list(CONTRACT)


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    run = write_run(tmp_path, cells=LADDER[:2])
    for name in ("a", "b"):
        write_report([run], tmp_path / name, None, "en")
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in FILES)


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_whatever_went_wrong_there_is_a_page(tmp_path: Path, lang: str) -> None:
    run = write_run(tmp_path, cells=LADDER[:1] + TROUBLED)
    page = write_report([run], tmp_path / lang, None, lang).read_text(encoding="utf-8")
    assert "needs 43 GiB, 3 are free" in page or "需要 43 GiB" in page
    assert "&lt;b&gt;signal 11&lt;/b&gt;" in page


@pytest.mark.parametrize(
    "cell",
    [
        Made(name="unscored", scored=False),
        Made(name="unmetered", metered=False),
        Made(name="all-wrong", right=-9.0),
        Made(name="nothing-told", quantisation=None, bits=None, family=None),
        *TROUBLED,
    ],
    ids=lambda cell: cell.name,
)
def test_one_cell_alone_is_enough(tmp_path: Path, cell: Made) -> None:
    for folder, planned in (("full", None), ("one", steps(items=1, notes=0))):
        report = report_of(write_run(tmp_path / folder, cells=(cell,), facts=planned))
        assert html(report, "en").endswith("</html>")
        assert markdown(report, "en")
        assert all(curves(report))


def test_a_run_that_measures_speed_alone_has_no_accuracy_and_says_so(tmp_path: Path) -> None:
    report = report_of(write_run(tmp_path, facts=steps(speed_only=True)))
    assert [r.accuracy for r in report.rows] == [None] * 5
    assert said(report) == {"Accuracy": EN["s_speed"].format(task="speed")}
    assert write_report(
        [write_run(tmp_path, name="other", facts=steps(speed_only=True))], tmp_path / "o", None, "en"
    ).exists()


def test_several_runs_share_a_page_and_keep_their_names(tmp_path: Path) -> None:
    one = write_run(tmp_path, name="one", cells=LADDER[:2], host="ward-a")
    two = write_run(tmp_path, name="two", cells=LADDER[:2], host="ward-b", meters=made_run.GPU_METERS)
    report = report_of(one, two, one)
    assert len(report.entries) == len({e.label for e in report.entries}) == len({e.short for e in report.entries}) == 12
    assert {e.row.run for e in report.groups[0].entries} == {one.name, two.name}


def test_no_run_a_folder_that_is_none_and_two_of_one_name_are_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no run was given"):
        write_report([], tmp_path, None, "en")
    with pytest.raises(StoreError, match="no run here"):
        write_report([tmp_path], tmp_path, None, "en")
    with pytest.raises(StoreError, match="language `fr`"):
        write_report([tmp_path], tmp_path, None, "fr")
    one, two = (write_run(tmp_path / name, cells=LADDER[:1]) for name in ("a", "b"))
    with pytest.raises(StoreError, match="two of the runs have the name"):
        write_report([one, two], tmp_path, None, "en")


def test_an_output_folder_that_cannot_be_made_is_the_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        write_report([write_run(tmp_path, cells=LADDER[:1])], tmp_path / "file" / "out", None, "en")


def test_what_a_model_said_stays_text(tmp_path: Path) -> None:
    run = write_run(tmp_path, cells=LADDER[:1], answer=made_run.SCRIPT)
    page = write_report([run], tmp_path, None, "en").read_text(encoding="utf-8")
    assert made_run.SCRIPT not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&lt;img src=x onerror=alert(2)&gt;" in page
    assert page.count("<script>") == 1


def test_every_row_leads_to_the_part_of_its_own_cell(tmp_path: Path) -> None:
    page = write_report([write_run(tmp_path, cells=LADDER + TROUBLED)], tmp_path / "out", None, "en").read_text()
    table = page[page.index('id="results"') : page.index('id="curves"')]
    wanted = re.findall(r'<th scope="row"><a href="#(cell-[^"]+)">', table)
    there = re.findall(r'<details class="cell" id="([^"]+)"', page)
    assert len(wanted) == table.count("<tr id=")
    assert set(wanted) == set(there)
    assert len(set(there)) == len(there) == len(LADDER + TROUBLED)


def test_a_formula_in_a_name_is_no_formula_in_the_table(tmp_path: Path) -> None:
    write_report([write_run(tmp_path, cells=(Made(name="x", quantisation=made_run.FORMULA),))], tmp_path, None, "en")
    with (tmp_path / "rows.csv").open(encoding="utf-8") as file:
        assert {line["quantisation"] for line in csv.DictReader(file)} == {"'" + made_run.FORMULA}


def test_names_are_no_markup_in_markdown(tmp_path: Path) -> None:
    write_report([write_run(tmp_path, cells=(Made(name="a|b<i>*c*"),))], tmp_path, None, "en")
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "a\\|b&lt;i>\\*c\\*" in text
    assert "<i>" not in text


def test_texts_that_were_not_kept_are_nowhere(tmp_path: Path) -> None:
    secret = "Mrs Planted-Name, 4 Elm Street"
    run = write_run(tmp_path, cells=LADDER[:1], answer=secret, store_text=False)
    page = write_report([run], tmp_path / "out", None, "en").read_text(encoding="utf-8")
    assert EN["ex_not_kept"] in page
    assert not any(secret.encode() in p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())


def test_the_policy_names_the_script_and_the_style_and_nothing_else(tmp_path: Path) -> None:
    page = write_report([write_run(tmp_path, cells=LADDER[:1])], tmp_path, None, "en").read_text(encoding="utf-8")
    policy = page.partition('Content-Security-Policy" content="')[2].partition('"')[0].replace("&#39;", "'")
    parts = [p.split(" ")[0] for p in policy.split("; ")]
    assert parts == ["default-src", "style-src", "script-src", "base-uri", "form-action"]
    assert "unsafe" not in policy
    assert " style=" not in page
    assert "http://" not in page
    assert "https://" not in page


def test_caveats_are_told_of_what_is_there_and_of_nothing_else(tmp_path: Path) -> None:
    t = speaker("en")
    demo = {b.name for b in badges(report_of(write_run(tmp_path)), t)}
    assert demo == {t(k) for k in ("badge_standin", "badge_synthetic", "badge_tariff", "badge_smoke")} | {
        t("badge_power", classes="E2")
    }
    measured = report_of(
        write_run(
            tmp_path,
            name="real",
            cells=(Made(name="r1-distill-7b", family="R1-distill"),),
            facts=steps(speed_only=True),
            meters=made_run.GPU_METERS,
            model="hf:deepseek-ai/x",
        )
    )
    assert t("badge_standin") not in {b.name for b in badges(measured, t)}
    assert t("badge_synthetic") not in {b.name for b in badges(measured, t)}


def test_variants_that_answer_alike_are_never_called_better(tmp_path: Path) -> None:
    """Two variants of one speed that answer every item alike."""
    twins = tuple(Made(name=n, right=0.5, quantisation=n) for n in ("twin", "twin2"))
    run = write_run(tmp_path, cells=twins, facts=steps(items=60, notes=0))
    for name in ("twin", "twin2"):
        folder = run / "cells" / f"{name}-abc123"
        if name == "twin2":
            (folder / "scores.jsonl").write_bytes((run / "cells" / "twin-abc123" / "scores.jsonl").read_bytes())
    report = report_of(run)
    told = said(report)
    assert "cannot be told apart" in told["Accuracy"]
    assert report.groups[0].best_accuracy == {e.name: 1.0 for e in report.entries}
    assert told["Together"] == EN["s_no_dominance"]


def test_a_variant_that_is_clearly_worse_is_said_to_be(tmp_path: Path) -> None:
    cells = (
        Made(name="good", right=0.8, quantisation="F16", bits=16.0, speed=2.0),
        Made(name="bad", right=0.3, quantisation="Q2_K", bits=3.0),
    )
    told = said(report_of(write_run(tmp_path, cells=cells, facts=steps(items=200, notes=0))))
    assert told["Accuracy"].startswith("F16 answers best")
    assert told["Cost"].startswith("F16 is cheapest")
    assert "Q2_K (by F16)" in told["Together"]
    assert "Worse: Q2_K." in told["As good as F16?"]


def test_differences_are_to_the_variant_with_the_most_bits_and_under_one_load(tmp_path: Path) -> None:
    report = report_of(write_run(tmp_path))
    for group in report.groups:
        entries = {e.name: e for e in group.entries}
        pairs = [(entries[d.name], entries[d.reference]) for d in group.differences]
        assert {b.row.quantisation for _, b in pairs} == {"F16"}
        assert all(a.row.load == b.row.load for a, b in pairs)
        assert len(pairs) == 4 * len({e.row.load for e in group.entries})


def test_an_estimate_of_energy_has_no_frontier_and_a_counter_has_one(tmp_path: Path) -> None:
    on_gpu = tuple(structs.replace(cell, device="cuda:0 H100") for cell in LADDER)
    for cells, meters, kind in ((LADDER, made_run.METERS, "estimated"), (on_gpu, made_run.GPU_METERS, "measured")):
        run = write_run(tmp_path, name=kind, cells=cells, facts=steps(items=400, notes=0), meters=meters)
        curves = {c.axis: c for c in report_of(run).groups[0].curves}
        assert curves["cost_per_1k_samples"].frontier
        assert {p.kind for p in curves["energy_per_sample_j"].points} == {kind}
        assert bool(curves["energy_per_sample_j"].frontier) == (kind == "measured")


def test_invalid_rows_are_drawn_and_never_on_the_frontier(tmp_path: Path) -> None:
    report = report_of(write_run(tmp_path, cells=LADDER + TROUBLED))
    for group in report.groups:
        invalid = {e.name for e in group.entries if not e.row.valid}
        assert not invalid & set(group.main.frontier)
        assert not invalid & set(group.main.probability)


def test_what_failed_is_in_the_summary(tmp_path: Path) -> None:
    report = report_of(write_run(tmp_path, cells=LADDER[:1] + TROUBLED[:1]))
    told = {s.lead: s.text for s in of_all(report, speaker("en"))}
    assert told["Failed"] == "1 of 2 cells: r1-32b-q4 (out of memory)."


def test_a_tariff_of_ones_own_is_no_example(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    text = (EXAMPLES / "example-de.toml").read_text(encoding="utf-8")
    own.write_text(
        text.replace("example = true", "example = false").replace('"example-de"', '"ours"'), encoding="utf-8"
    )
    page = write_report([write_run(tmp_path, cells=LADDER[:1])], tmp_path, own, "en").read_text(encoding="utf-8")
    assert EN["badge_tariff"] not in page
    assert "ours" in page
    assert "EUR" in page


def test_the_machine_of_the_tariff_is_found_by_the_hosts_name(tmp_path: Path) -> None:
    one = write_run(tmp_path, name="a", cells=LADDER[:1], host="8xh100-80g")
    two = write_run(tmp_path, name="b", cells=LADDER[:1], host="ward-server")
    tariffs = report_of(one, two).tariffs
    assert [t.machine for t in tariffs.values()] == ["8xh100-80g", "demo-cpu-2-core"]


@pytest.mark.parametrize("share", [0.01, 0.02, 0.05, 0.12])
def test_of_two_tied_variants_one_is_called_better_in_at_most_one_run_of_twenty(share: float) -> None:
    """200 items, that share of them discordant, no true difference: the claim of accuracy in 400 simulated runs."""
    dice = np.random.default_rng(5)
    claims = 0
    for _ in range(400):
        flips = np.where(dice.random(200) < share, dice.choice([-1, 1], 200), 0)
        first, second = (
            tuple(Item(f"q{i}", f"q{i}", float(f == side), 1) for i, f in enumerate(flips)) for side in (1, -1)
        )
        claims += chance_alike(first, second) <= SIGNIFICANT
    assert claims <= 27  # 5 % of 400, with the 95 % limit of a count whose mean is 20


def test_a_lead_of_two_items_is_luck_even_where_no_item_speaks_against_it() -> None:
    ahead, behind = ([Item(f"q{i}", f"q{i}", float(i < right), 1) for i in range(200)] for right in (82, 80))
    assert chance_alike(ahead, behind) == pytest.approx(0.25)
    assert chance_alike(ahead, ahead) == 1.0
    assert chance_alike([], behind) == 1.0


def test_who_costs_as_little_as_the_cheapest() -> None:
    cost = np.array([[1.0, 1.0, 1.0, 1.0], [1.1, 0.9, 1.2, 1.2], [2.0, 2.0, 2.0, 2.0]])
    assert as_cheap(["a", "b", "c"], cost, [1.0, 1.1, 2.0]) == {"a": 1.0, "b": 0.25, "c": 0.0}
    assert as_cheap(["a"], cost[:1] * np.nan, [1.0]) == {}


def test_an_invalid_row_is_grey_on_every_chart(tmp_path: Path) -> None:
    report = report_of(write_run(tmp_path, cells=LADDER[:1] + TROUBLED[1:2]))
    group, t = report.groups[0], speaker("en")
    (invalid,) = [e for e in group.entries if not e.row.valid and e.row.accuracy is not None]
    for curve in group.curves:
        drawn = curve_chart(group, curve, t, "USD")
        if drawn:
            point = next(p for p in drawn.split("<a ") if f'data-row="{invalid.anchor}"' in p)
            assert 'class="dot invalid ' in point


def searched(folder: Path, **found: object) -> Report:
    """A run of one cell after which a smallest memory was searched for, for its first step."""
    run = write_run(folder, cells=LADDER[:1])
    step = next(s for s in RunDir(run).manifest().cells[0].steps if not s.warmup)
    trial = MemoryTrial(limit_bytes=None, outcome="ok", seconds=1.0, peak_bytes=1000 * 2**20)
    probed = MemoryProbed(time_ns=0, step=step.name, limit="address space of the worker", trials=(trial,) * 7, **found)  # type: ignore[arg-type]
    with Lines(next(run.glob("cells/*/events.jsonl"))) as events:
        events.append(probed)
    return report_of(run)


def test_the_smallest_memory_stands_with_the_other_memory_figures(tmp_path: Path) -> None:
    report = searched(tmp_path, smallest_bytes=750 * 2**20, failed_bytes=720 * 2**20)
    english, chinese = html(report, "en"), html(report, "zh")
    assert (
        f"750\u00a0MiB (a short repeat of {report.rows[0].step} works with it; 7 trials, to within 4.0\u00a0%)."
        in english
    )
    assert (
        f"750\u00a0MiB（以此上限可完成步骤 {report.rows[0].step} 的简短重复；共试 7 次，分辨率 4.0\u00a0%）。"
        in chinese
    )
    for page, words in ((english, EN), (chinese, ZH)):
        assert f'<a href="#g-smallest">{words["h_smallest"]}</a></th>' in page
        assert words["g_smallest_text"] in page
        assert f">{words['line_smallest']}</text>" in page
    columns = [c.key for c in table_of(report.groups[0]).columns]
    assert columns.index("h_smallest") == columns.index("h_memory") + 1
    assert "smallest" not in {lack.what for lack in lacking(report, speaker("en"))}


def test_a_smallest_memory_that_is_not_provided_says_why(tmp_path: Path) -> None:
    report = searched(tmp_path, smallest_bytes=None, reason="not provided for vllm")
    assert "</a>: unknown; not provided for vllm.</p>" in html(report, "en")
    assert "</a>: 未知；不支持 vllm。</p>" in html(report, "zh")
    assert ("Smallest memory", "not provided for vllm") in {(k.what, k.why) for k in lacking(report, speaker("en"))}
    assert "h_smallest" not in [c.key for c in table_of(report.groups[0]).columns]


def test_nothing_is_shown_of_a_smallest_memory_that_nobody_asked_for(tmp_path: Path) -> None:
    report = report_of(write_run(tmp_path, cells=LADDER[:1]))
    page = html(report, "en")
    assert '<a href="#g-smallest">' not in page
    assert EN["line_smallest"] not in page
    assert EN["g_smallest_text"] not in page
    assert "h_smallest" not in [c.key for c in table_of(report.groups[0]).columns]
