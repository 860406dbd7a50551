"""The determinism probe of a night: the same few prompts, greedy, one after the other, so that a changed answer has a cause.

Under load greedy answers differ by themselves, since kernels are not batch-invariant; with one request in flight and nothing changed
they should not. The probe is a run like a block (`-p1`), with its own small suite; what is kept of it in the history are hashes.
"""

from collections.abc import Sequence

import msgspec

from bench.config import Deployment, Load, Suite, TaskOptions
from bench.plan import CellPlan, planned_seconds
from bench.session import Prepared, Wishes, prepare

PROMPTS = 20
TOKENS = 64
"""Of an answer; enough to see a fork, short enough for every night."""


def probe_suite(prepared: Prepared) -> Suite | str:
    """The suite of the probe, or why there is none.

    The prompts are the first of each task's shuffled pool, whichever part of it the night asks. Recorded answers are not probed.
    """
    suite = prepared.suite
    cells = [c for c in prepared.cells if c.deployment.backend != "recorded" and not c.facts.skipped]
    if not cells:
        return "no deployment to probe"
    written = _written(cells)
    if not written:
        return "no generated text to probe"
    shares = _shares(len(written))
    options = suite.task_options()
    tasks = {name: _asked(options[name], share) for name, share in zip(written, shares, strict=True) if share}
    return msgspec.structs.replace(
        suite,
        tasks=tasks,
        load=(Load(concurrency=1),),
        repeats=1,
        limit=None,
        profile="smoke",
        idle_s=0.0,
        smallest_memory=False,
        deployments=tuple(_greedy(cell.deployment) for cell in cells),
    )


def probe_seconds(prepared: Prepared) -> float | None:
    """Rough duration of the probe on the machine that was planned for; 0 where there is none."""
    probe = probe_suite(prepared)
    if isinstance(probe, str):
        return 0.0
    return planned_seconds(prepare(probe, prepared.base, Wishes(), prepared.host).cells)


def _written(cells: Sequence[CellPlan]) -> list[str]:
    """Tasks that some deployment answers in text of its own length, in the order of the suite."""
    facts = [step.facts for cell in cells for step in cell.steps]
    return list(dict.fromkeys(f.task for f in facts if f.scoring == "generate" and f.kind != "speed"))


def _shares(tasks: int) -> list[int]:
    """`PROMPTS` over the tasks as evenly as can be; the first ones get what is left over."""
    return [PROMPTS // tasks + (i < PROMPTS % tasks) for i in range(tasks)]


def _asked(options: TaskOptions, count: int) -> TaskOptions:
    return msgspec.structs.replace(
        options,
        scoring="generate",
        limit=count,
        max_tokens=min(TOKENS, options.max_tokens or TOKENS),
        load=None,
        samples_per_item=1,
        shots=0,
        shots_data=None,
    )


def _greedy(deployment: Deployment) -> Deployment:
    sampling = msgspec.structs.replace(deployment.sampling, temperature=0.0, top_p=1.0)
    return msgspec.structs.replace(deployment, sampling=sampling)
