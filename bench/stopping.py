"""Ends a step before its last question, by a rule that stood in the plan before the first one (docs/stopping.md).

The measuring side alone knows of it: it reads the worker's records as they come, judges the first n items against the baseline's
scores of the same items, and when the rule says so writes the step's end itself and lets the worker go. The worker is told nothing.
"""

from collections.abc import Mapping

from bench.render import StepPlan, TaskData
from bench.score import score_step
from results.manifest import StoppingRule
from results.records import Answered, Event, Ranked, StepEnded, StepStarted, Stopped

Outcomes = Mapping[str, float]
"""Item to the baseline's score of it."""


class Stopper:
    """Watches one step and says when it is over. Until the performance window is measured it computes nothing."""

    def __init__(self, step: StepPlan, data: TaskData, rule: StoppingRule, baseline: Outcomes, seed: int) -> None:
        self._step, self._data, self._rule, self._baseline, self._seed = step, data, rule, baseline, seed
        self._order = [r.id for r in step.job.requests or step.job.ranks]
        self._begin(0)

    def _begin(self, time_ns: int) -> None:
        self._start_ns = time_ns
        self._records: dict[str, Answered | Ranked] = {}
        self._ready = 0
        """Items from the first on without a gap."""
        self._reached = 0
        """The last look that was reached; one that comes before the window is measured is let pass."""
        self._judged = 0
        self._clusters: set[str] = set()
        self._differences: list[float] = []

    def take(self, event: Event) -> StepEnded | None:
        """The step's end, if this record was the last one that is needed."""
        match event:
            case StepStarted() if event.step == self._step.facts.name:
                self._begin(event.time_ns)
            case Answered() | Ranked() if event.step == self._step.facts.name:
                self._records[event.sample] = event
                return self._look()
            case _:
                pass
        return None

    def _look(self) -> StepEnded | None:
        self._advance()
        look = self._ready - self._ready % self._rule.look_every
        if look <= self._reached:
            return None
        self._reached = look
        if look < self._rule.fewest_items or not self._worth_it() or not self._window_measured():
            return None
        self._judge(look)
        stopped = self._decided()
        if stopped is None:
            return None
        return StepEnded(self._step.facts.name, max(r.end_ns for r in self._records.values()), stopped)

    def _advance(self) -> None:
        """An answer that came early waits for those before it."""
        while self._ready < len(self._order) and self._order[self._ready] in self._records:
            self._ready += 1

    def _worth_it(self) -> bool:
        """Not when everything that is left is on its way already."""
        return len(self._order) - len(self._records) > (self._step.facts.concurrency or 1)

    def _window_measured(self) -> bool:
        """Whether what the plan asks of the speed figures stands, if the step ended now."""
        from results.series import Window
        from results.views import StepRecords
        from results.windows import batch_limit, steady_window

        records = self._records.values()
        step = StepRecords(
            facts=self._step.facts,
            span=Window(self._start_ns, max(r.end_ns for r in records)),
            answered=tuple(r for r in records if isinstance(r, Answered)),
            ranked=tuple(r for r in records if isinstance(r, Ranked)),
        )
        asked, steady = self._rule, steady_window(step)
        seconds = steady.seconds if steady else 0.0
        requests = max(asked.window_requests, asked.window_requests_per_slot * max(1, batch_limit(step)))
        return seconds >= asked.window_s and sum(r.error is None for r in records) >= requests

    def _judge(self, look: int) -> None:
        """The items since the last look; of a cluster only its first one counts."""
        records = [self._records[item] for item in self._order[self._judged : look]]
        for score in score_step(self._step, self._data, records, self._seed):
            base = self._baseline.get(score.sample)
            if score.value is not None and base is not None and score.cluster not in self._clusters:
                self._clusters.add(score.cluster)
                self._differences.append(score.value - base)
        self._judged = look

    def _decided(self) -> Stopped | None:
        from results.anytime import decide, e_value
        from results.stats import bounded_mean

        decision = decide(self._differences, self._rule)
        if decision == "go on":
            return None
        found = bounded_mean(self._differences, -1.0, 1.0, 1 - self._rule.alpha)
        b, c = self._differences.count(1.0), self._differences.count(-1.0)
        return Stopped(
            items=self._judged,
            answered=len(self._records),
            decision=decision,
            e_value=e_value(b, c),
            pairs=len(self._differences),
            only_candidate=b,
            only_baseline=c,
            lo=found.lo,
            hi=found.hi,
        )
