"""The history of a nightly job: a folder of runs, and one Parquet file made from them that can be made again at any time.

A run of a night is named `<suite>-night-<night>-b<block>`; confirmation runs end in `-c<block>` and are kept, but are no points of a
series; the determinism probe ends in `-p1`, and of it only the hashes of its answers are kept.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from results.load import LoadedCell, load
from results.manifest import Manifest
from results.nightly.judge import METRICS
from results.records import Answered, CellEnded, Ranked
from results.store import RunDir, StoreError
from results.validity.identity import foreign_share

RUN_NAME = re.compile(r"(?P<stamp>\d{8}T\d{6}Z)_(?P<suite>.+)-night-(?P<night>.+)-(?P<arm>[bcp])(?P<block>\d+)")


EMPTY = hashlib.sha256(b"").hexdigest()[:16]


class Entry(Struct, frozen=True, kw_only=True):
    """One figure of a block (`metric` set), one judged answer (`item` set), or how a cell ended (neither)."""

    suite: str
    night: str
    arm: str
    """`b` for a block of the night, `c` for a confirmation, `p` for the determinism probe."""
    block: int
    run: str
    deployment: str
    outcome: str
    epoch: str
    """Hash of everything that must be the same for two nights to be compared."""
    task: str = ""
    load: str = ""
    metric: str = ""
    value: float | None = None
    item: str = ""
    right: bool | None = None
    text_hash: str = ""
    weights: str = ""
    """SHA-256 of the weights, where the engine tells it."""
    asked: str = ""
    """The model as the suite asks for it: source, file, quantisation, layers."""
    foreign: float | None = None
    """Of the machine's cores, the share that others kept busy in the cell's most disturbed step, repeats of a step taken together;
    None where not read."""
    repeat: int = 0
    """Of the step that the figure is of."""


def read_run(run: RunDir) -> list[Entry]:
    """The entries of one run. Raises `StoreError` for a broken one and `ValueError` for a name that is no night's."""
    name = RUN_NAME.fullmatch(run.path.name)
    if name is None:
        raise ValueError(f"{run.path.name}: not the name of a night's run")
    try:
        return [entry for cell in load(run, run.manifest()) for entry in _entries(run, cell, name)]
    except (ArithmeticError, LookupError) as error:  # records that can be decoded and say what cannot be
        raise StoreError(f"{run.path}: its records make no sense ({type(error).__name__}: {error})") from error


def _entries(run: RunDir, cell: LoadedCell, name: re.Match[str]) -> list[Entry]:
    ended = run.cell(cell.facts.id).ended()
    head = Entry(
        suite=name["suite"],
        night=name["night"],
        arm=name["arm"],
        block=int(name["block"]),
        run=run.path.name,
        deployment=cell.facts.deployment,
        outcome=ended.outcome if ended else "interrupted",
        epoch=epoch_of(cell, ended),
        weights=_weights(cell),
        asked=_asked(run, cell.manifest).get(cell.facts.deployment, ""),
        foreign=_foreign(cell),
    )
    if head.arm == "p":
        head = msgspec.structs.replace(head, epoch=_probe_epoch(cell, head.epoch))
        return [head, *_probed(cell, head)]
    return [head, *_figures(cell, head), *_answers(cell, head)]


def _asked(run: RunDir, manifest: Manifest) -> dict[str, str]:
    """By deployment, the model that the suite asked for."""
    try:
        told = msgspec.convert(manifest.suite.get("deployments", ()), list[dict[str, Any]])
    except msgspec.ValidationError as error:
        raise StoreError(f"{run.path}: broken manifest: deployments of the suite: {error}") from error
    return {str(d.get("name")): _model_of(d) for d in told}


def _model_of(deployment: dict[str, Any]) -> str:
    return " ".join(str(deployment[key]) for key in ("model", "file", "quantise", "layers") if deployment.get(key))


def _foreign(cell: LoadedCell) -> float | None:
    shares: dict[tuple[str, str], list[float]] = defaultdict(list)
    for view in cell.views:
        if view.step.span is not None and (share := foreign_share(view)) is not None:
            shares[view.step.facts.task, view.step.facts.load].append(share)
    return max((sum(found) / len(found) for found in shares.values()), default=None)


def _weights(cell: LoadedCell) -> str:
    return next((s.engine.weights_sha256 for s in cell.records.steps if s.engine and s.engine.weights_sha256), "")


def epoch_of(cell: LoadedCell, ended: CellEnded | None) -> str:
    """What must not change for two nights to be compared: machine and software, weights, engine and its settings, data, scorers, turns."""
    engine = next((step.engine for step in cell.records.steps if step.engine), None)
    steps = [
        (s.task, s.task_version, s.scoring, s.load, s.data_sha256, s.sampling, *((s.style,) if s.style else ()))
        for s in cell.facts.steps
        if not s.warmup
    ]
    same = [
        ended.fingerprint_start if ended else None,
        engine.weights_sha256 if engine else None,
        engine.engine_version if engine else None,
        cell.facts.settings,
        cell.facts.quantisation,
        steps,
        *(("together",) if _together(cell.manifest) else ()),
    ]
    return hashlib.sha256(msgspec.json.encode(same, order="sorted")).hexdigest()[:16]


def _together(manifest: Manifest) -> bool:
    """Whether the deployments of the block were loaded at once and took turns."""
    nightly = manifest.suite.get("nightly")
    return isinstance(nightly, dict) and bool(nightly.get("together"))


def _figures(cell: LoadedCell, head: Entry) -> Iterator[Entry]:
    for row in cell.rows:
        for metric in METRICS:
            value = getattr(row, metric, None)
            if (
                row.outcome == "ok"
                and value is not None
                and value > 0
                and not (metric.startswith("energy") and not row.energy_valid)
            ):
                yield msgspec.structs.replace(
                    head, task=row.task, load=row.load, metric=metric, value=float(value), repeat=row.repeat
                )


def _answers(cell: LoadedCell, head: Entry) -> Iterator[Entry]:
    """Of the first load of each task: the same items under another load are no new answers."""
    seen: set[str] = set()
    for view in cell.views:
        if view.step.facts.task in seen or view.step.span is None:
            continue
        seen.add(view.step.facts.task)
        hashes = {(r.sample, r.repeat): _hash(r) for r in view.step.records}
        greedy = not view.step.facts.sampling.get("temperature")
        for score in view.step.scores:
            yield msgspec.structs.replace(
                head,
                task=view.step.facts.task,
                load=view.step.facts.load,
                item=f"{score.sample}#{score.repeat}",
                right=score.verdict == "correct",
                text_hash=hashes.get((score.sample, score.repeat), "") if greedy else "",
            )


def _probe_epoch(cell: LoadedCell, epoch: str) -> str:
    """The prompts of the probe, with their limits, are the same every night; other prompts are another epoch."""
    prompts = [s.prompt_sha256 for s in cell.facts.steps if not s.warmup]
    return hashlib.sha256(msgspec.json.encode([epoch, prompts])).hexdigest()[:16]


def _probed(cell: LoadedCell, head: Entry) -> Iterator[Entry]:
    """An answer without text (failed, or nothing was said) has no hash, and is compared with none."""
    for step in (view.step for view in cell.views if view.step.span is not None):
        for r in step.answered:
            yield msgspec.structs.replace(
                head, task=step.facts.task, load=step.facts.load, item=f"{r.sample}#{r.repeat}", text_hash=_text_hash(r)
            )


def _text_hash(record: Answered) -> str:
    """Of the thinking too, where the engine gives it in a channel of its own; "" where there is nothing to compare."""
    if record.error is not None:
        return ""
    thinking = record.reasoning_sha256
    if record.reasoning and thinking is None:
        thinking = hashlib.sha256(record.reasoning.encode()).hexdigest()
    if thinking:
        return hashlib.sha256(f"{thinking}\0{_hash(record)}".encode()).hexdigest()[:16]
    return "" if _hash(record) == EMPTY else _hash(record)


def _hash(record: Answered | Ranked) -> str:
    if isinstance(record, Answered):
        if record.text_sha256:
            return record.text_sha256[:16]
        return hashlib.sha256((record.text or "").encode()).hexdigest()[:16]
    return hashlib.sha256(repr([round(c.logprob, 6) for c in record.continuations]).encode()).hexdigest()[:16]


COLUMNS = Entry.__struct_fields__
TYPES = {"block": "INTEGER", "repeat": "INTEGER", "value": "DOUBLE", "right": "BOOLEAN", "foreign": "DOUBLE"}
"""Of the Parquet file's columns that are not text."""


def write(path: Path, entries: Sequence[Entry]) -> None:
    """Replace the Parquet file at once: a reader sees the old one or the new one. Raises `StoreError` where it cannot be written."""
    import duckdb

    lines, part = path.with_name(path.name + ".jsonl"), path.with_name(path.name + ".part")
    columns = ", ".join(f"'{name}': '{TYPES.get(name, 'VARCHAR')}'" for name in COLUMNS)
    source = f"read_json('{_quoted(lines)}', format = 'newline_delimited', columns = {{{columns}}})"
    try:
        lines.write_bytes(msgspec.json.Encoder().encode_lines(entries))
        lines.chmod(0o600)
        with duckdb.connect() as connection:
            connection.execute(f"COPY (SELECT * FROM {source}) TO '{_quoted(part)}' (FORMAT parquet)")
    except duckdb.IOException as error:
        part.unlink(missing_ok=True)
        why = "No space left on device" if "No space left" in str(error) else str(error).partition("\n")[0]
        raise StoreError(f"{path}: cannot be written ({why}); give the same command again when it can") from error
    finally:
        lines.unlink(missing_ok=True)
    part.chmod(0o600)
    part.replace(path)


def read(path: Path) -> list[Entry]:
    """The entries of a Parquet file, oldest night first."""
    import duckdb

    with duckdb.connect() as connection:
        columns = ", ".join(
            f'"{name}"' for name in COLUMNS
        )  # by name: a file of an older version lacks some, and is made anew
        rows = connection.execute(f"SELECT {columns} FROM read_parquet('{_quoted(path)}')").fetchall()
    return [Entry(**dict(zip(COLUMNS, row, strict=True))) for row in rows]


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
