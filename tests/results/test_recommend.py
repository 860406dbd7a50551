"""What to run for a given load: the queue against Erlang's formulas, sizing, refusals, and the command."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_run import LADDER, Made, steps, write_run
from msgspec import structs

from bench.cli import main
from results.cost import Power, example_tariff
from results.recommend import recommend
from results.recommend.demand import Demand, Estimate, Limit, Work, load_demand
from results.recommend.fit import DRAWS, Load, Measured, fit, predicted_s
from results.recommend.page import html, markdown
from results.recommend.queue import between, chain, in_time
from results.stats import Interval
from results.store import StoreError

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "demand.toml"
TARIFF = example_tariff()
WORK = Work(name="letters", task="note_summary_en", requests_per_day=1000.0)


def curve(*rates: float) -> np.ndarray:
    return np.array([rates])


def load(concurrency: int, requests_per_s: float, **other: Any) -> Load:
    exact = Interval(value=requests_per_s, lo=requests_per_s, hi=requests_per_s, n=1, method="steady")
    told: dict[str, Any] = {
        "ttft_ms": np.full(400, 100.0),
        "tpot_ms": np.full(400, 20.0),
        "prompt_tokens": 500.0,
        "output_tokens": 100.0,
        "power": Power(busy_w=100.0 + 10 * concurrency, idle_w=50.0),
    }
    return Load(concurrency=concurrency, requests_per_s=exact, **(told | other))


def measured(*loads: Load, accuracy: float = 0.6) -> dict[str, Measured]:
    right = np.full(DRAWS, accuracy)
    return {"note_summary_en": Measured(loads=loads, accuracy=right, correct=right, power_factor=np.ones(DRAWS))}


def demand(**other: Any) -> Demand:
    asked = {k: other.pop(k) for k in ("confidence", "spare_nodes", "most_nodes") if k in other}
    return Demand(name="d", work=(structs.replace(WORK, **other),), **asked)


def test_one_at_a_time_is_the_mm1_queue() -> None:
    # a = 0.5/s, m = 1/s: p0 = 1/2, E[N] = r / (1 - r) = 1, R = 1 / (m - a) = 2 s, P(wait) = r
    state = chain(np.array([0.5]), curve(1.0))
    assert state.idle[0] == pytest.approx(0.5)
    assert state.inside[0] == pytest.approx(1.0)
    assert state.inside[0] / 0.5 == pytest.approx(1 / (1.0 - 0.5))
    assert state.waits[0] == pytest.approx(0.5)


@pytest.mark.parametrize(("c", "a"), [(2, 1.5), (3, 2.0), (8, 6.0)])
def test_a_rate_that_grows_with_the_number_inside_is_erlangs_queue(c: int, a: float) -> None:
    # M/M/c with m = 1/s by hand: Erlang's C and L = C r / (1 - r) + a
    r = a / c
    last = a**c / math.factorial(c) / (1 - r)
    erlang = last / (sum(a**k / math.factorial(k) for k in range(c)) + last)
    state = chain(np.array([a]), curve(*range(1, c + 1)))
    assert state.waits[0] == pytest.approx(erlang)
    assert state.inside[0] == pytest.approx(erlang * r / (1 - r) + a)


def test_two_servers_by_hand() -> None:
    # M/M/2, a = m = 1/s: p0 = 1/3, P(wait) = 1/3, E[N] = 4/3
    state = chain(np.array([1.0]), curve(1.0, 2.0))
    assert (state.idle[0], state.waits[0], state.inside[0]) == pytest.approx((1 / 3, 1 / 3, 4 / 3))


def test_more_than_can_be_served_waits_for_ever() -> None:
    state = chain(np.array([2.0]), curve(1.0, 2.0))
    assert (state.waits[0], state.inside[0], state.drain[0]) == (1.0, math.inf, 0.0)
    assert in_time(state, np.ones((1, 2)), np.array([0.1]), 60.0)[0] == 0.0


def test_a_long_and_steep_curve_does_not_overflow() -> None:
    state = chain(np.array([500.0]), np.linspace(0.01, 600.0, 1000)[None, :])
    assert state.states.sum() + state.waits[0] == pytest.approx(1.0)


def test_no_arrivals_leave_the_machine_idle() -> None:
    assert chain(np.array([0.0]), curve(1.0, 2.0)).idle[0] == 1.0


def test_who_waits_is_in_time_by_the_exponential_law() -> None:
    # M/M/1, a = 0.5, m = 1, service begins at once after the wait: P(wait <= t) = 1 - r exp(-(m - a) t)
    state = chain(np.array([0.5]), curve(1.0))
    share = in_time(state, np.ones((1, 1)), np.zeros(1), 2.0)[0]
    assert share == pytest.approx(1 - 0.5 * math.exp(-0.5 * 2))


def test_rates_between_measured_loads_lie_on_straight_lines_and_below_the_first_in_proportion() -> None:
    assert (np.array([8.0, 12.0]) @ between([4, 8])).tolist() == pytest.approx([2, 4, 6, 8, 9, 10, 11, 12])


def test_nodes_are_as_many_as_the_peak_needs_and_the_spare_ones() -> None:
    # 86,400 a day, 3.6 times the mean in the busiest hour: 3.6/s; a node serves 2/s, but two of them would drain at
    # 0.2/s only, and who waits (over half) would be in time with 1 - exp(-0.2 x 4.9) = 62 %; so three, and a spare one
    asked = demand(requests_per_day=86400.0, peak_hour_share=0.15, ttft=Limit(at_most_ms=5000))
    found, year = fit("x", asked, measured(load(1, 1.0), load(4, 2.0)), TARIFF)
    assert (found.meets, found.nodes, found.spare, found.probability) == (True, 4, 1, 1.0)
    assert found.capacity_per_s == pytest.approx(2.0)
    assert found.peak_per_s == pytest.approx(3.6)
    assert max(found.utilisation) == found.utilisation[10] < 1
    assert year is not None
    assert found.cost_per_year is not None
    assert found.cost_per_correct is not None
    assert found.cost_per_correct.value == pytest.approx(found.cost_per_year.value / (365 * 86400 * 0.6), rel=1e-6)  # type: ignore[operator]


def test_more_requests_never_need_fewer_nodes() -> None:
    needed = [
        fit("x", demand(requests_per_day=n, ttft=Limit(at_most_ms=2000)), measured(load(1, 1.0), load(8, 3.0)), TARIFF)[0].nodes
        for n in (1e3, 1e4, 1e5, 3e5)
    ]  # fmt: skip
    assert needed == sorted(n for n in needed if n is not None)


def test_an_accuracy_that_is_not_reached_is_named() -> None:
    found, _ = fit("x", demand(minimum_accuracy=0.7), measured(load(1, 1.0)), TARIFF)
    assert not found.meets
    assert "accuracy 60.0 %, 70 % are asked for" in found.why_not[0].en


def test_an_accuracy_that_nobody_scored_is_unknown_and_not_a_number() -> None:
    found, _ = fit("x", demand(minimum_accuracy=0.5), measured(load(1, 1.0), accuracy=float("nan")), TARIFF)
    assert "has no scores" in found.why_not[0].en
    free, _ = fit("x", demand(), measured(load(1, 1.0), accuracy=float("nan")), TARIFF)
    assert free.meets
    assert free.cost_per_correct is not None
    assert free.cost_per_correct.value is None


def test_a_limit_that_a_lone_request_misses_is_not_helped_by_nodes() -> None:
    found, _ = fit("x", demand(ttft=Limit(at_most_ms=50)), measured(load(1, 1.0)), TARIFF)
    assert (found.meets, found.nodes) == (False, None)
    assert "no number of nodes helps" in found.why_not[0].en


def test_a_demand_beyond_the_most_nodes_is_refused() -> None:
    found, _ = fit("x", demand(requests_per_day=1e6, most_nodes=2), measured(load(1, 1.0)), TARIFF)
    assert found.why_not[0].en == "2 nodes are not enough"


def test_requests_longer_than_measured_are_not_extrapolated() -> None:
    for asked in ({"prompt_tokens": 2000.0}, {"output_tokens": 400.0}):
        found, _ = fit("x", demand(**asked), measured(load(1, 1.0)), TARIFF)
        assert not found.meets
        assert "were measured" in found.why_not[0].en


def test_an_uncertain_demand_makes_an_uncertain_cost_per_answer() -> None:
    wide = demand(requests_per_day=Estimate(value=1000.0, low=500.0, high=2000.0))
    costs = [fit("x", asked, measured(load(1, 1.0)), TARIFF)[0].cost_per_correct for asked in (demand(), wide)]
    widths = [c.hi / c.lo for c in costs if c is not None and c.hi is not None and c.lo is not None]
    assert widths[1] > widths[0]


def test_the_open_load_is_predicted_by_littles_law() -> None:
    assert predicted_s((load(1, 1.0),), 0.5) == pytest.approx(2.0)


def test_a_cost_is_unknown_where_power_is() -> None:
    blind = load(1, 1.0, power=Power(busy_w=None, idle_w=None))
    found, year = fit("x", demand(), measured(blind), TARIFF)
    assert found.meets
    assert (found.cost_per_year, found.cost_per_correct, year) == (None, None, None)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('name = "d"\nwork = []\n', "no [[work]]"),
        ('name = "d"\n[[work]]\nname = "w"\ntask = "t"\nrequests_per_day = 0\n', "requests_per_day"),
        ('name = "d"\n[[work]]\nname = "w"\ntask = "t"\nrequests_per_day = 9\nby_hour = [1, 2]\n', "24 weights"),
        ('name = "d"\n[[work]]\nname = "w"\ntask = "t"\nrequests_per_day = 9\npeek = 1\n', "peek"),
        ("name = ", "not valid TOML"),
    ],
)
def test_a_mistake_in_a_demand_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "demand.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(StoreError, match=r"demand\.toml") as raised:
        load_demand(path)
    assert sentence in str(raised.value)


def test_ranked_answers_say_nothing_of_the_time_of_written_ones(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    path = tmp_path / "demand.toml"
    path.write_text(
        'name = "d"\n[[work]]\nname = "w"\ntask = "clinical_qa_en"\nrequests_per_day = 9\n', encoding="utf-8"
    )
    found = recommend(path, [run])
    assert found.best is None
    assert all("no answers were written" in c.fit.why_not[0].en for c in found.candidates)


def test_the_command_prints_writes_and_tells_by_its_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = write_run(
        tmp_path, "one", (*LADDER[:2], Made(name="<b>x</b>", quantisation="Q4_0", bits=5.4)), steps(notes=48)
    )
    status = main(["recommend", "--demand", str(EXAMPLE), str(run), "--json"])
    told = json.loads(capsys.readouterr().out)
    page, text = ((tmp_path / f"recommendation.{kind}").read_text(encoding="utf-8") for kind in ("html", "md"))
    assert status == (0 if told["candidates"][0]["fit"]["meets"] else 3)
    assert {c["deployment"] for c in told["candidates"]} == {"smollm2-135m-f16", "smollm2-135m-q8_0", "<b>x</b>"}
    assert "<b>x</b>" not in page
    assert "<b>x</b>" not in text
    assert "default-src &#39;none&#39;" in page
    assert "<script" not in page


def test_every_word_is_there_in_chinese(tmp_path: Path) -> None:
    found = recommend(EXAMPLE, [write_run(tmp_path, "one", LADDER, steps(notes=48))])
    assert "按给定负载推荐部署" in html(found, "zh")
    assert "需求" in markdown(found, "zh")
