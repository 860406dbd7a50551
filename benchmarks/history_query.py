"""The Parquet history of 1,000 nightly runs, written as the nightly job writes it, and how long questions to it take.

`python benchmarks/history_query.py [RUNS]`: 200 nights of five blocks, four deployments with two loads, every figure that is judged and
20 answers for each cell. A history query is to take less than a second with duckdb.
"""

import random
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import duckdb
from msgspec.structs import replace

from results.nightly.history import Entry, read, write
from results.nightly.judge import METRICS

BLOCKS, ITEMS = 5, 20
DEPLOYMENTS = ("f16", "q8_0", "q4_k_m", "q2_k")
LOADS = ("c1", "c8")

QUERIES = {
    "median of each figure by night": """
        SELECT night, deployment, task, load, metric, median(value) FROM read_parquet($path)
        WHERE arm = 'b' AND metric <> '' GROUP BY ALL ORDER BY ALL""",
    "speed against the control, block by block": """
        SELECT a.night, a.block, a.deployment, ln(a.value / c.value) FROM read_parquet($path) a JOIN read_parquet($path) c
        USING (suite, night, arm, block, task, load, metric)
        WHERE c.deployment = 'f16' AND a.deployment <> 'f16' AND metric = 'output_tokens_per_s' ORDER BY ALL""",
    "accuracy by night": """
        SELECT night, deployment, task, avg("right"::INT), count(*) FROM read_parquet($path)
        WHERE item <> '' GROUP BY ALL ORDER BY ALL""",
    "one deployment's last 40 nights": """
        SELECT * FROM read_parquet($path) WHERE deployment = 'q4_k_m' AND metric <> '' AND night IN
        (SELECT DISTINCT night FROM read_parquet($path) ORDER BY night DESC LIMIT 40)""",
}


def entries(runs: int) -> Iterator[Entry]:
    drawn = random.Random(0)
    for number in range(runs):
        night = (date(2026, 1, 1) + timedelta(days=number // BLOCKS)).isoformat()
        block = number % BLOCKS + 1
        name = f"{night.replace('-', '')}T020000Z_clinic-night-{night}-b{block}"
        for deployment in DEPLOYMENTS:
            head = Entry(
                suite="clinic", night=night, arm="b", block=block, run=name, deployment=deployment, outcome="ok", epoch="e" * 16
            )  # fmt: skip
            yield head
            for load in LOADS:
                for metric in METRICS:
                    value = 100 * drawn.lognormvariate(0, 0.01)
                    yield replace(head, task="clinical_qa_en", load=load, metric=metric, value=value)
            for item in range(ITEMS):
                right, hashed = drawn.random() < 0.6, f"{drawn.getrandbits(64):016x}"
                yield replace(
                    head, task="clinical_qa_en", load="c1", item=f"q{number // BLOCKS * ITEMS + item}#0", right=right, text_hash=hashed
                )  # fmt: skip


def timed(name: str, start: float) -> None:
    print(f"{name}: {time.perf_counter() - start:.2f} s")


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    made = list(entries(runs))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "history.parquet"
        start = time.perf_counter()
        write(path, made)
        timed(f"written: {runs} runs, {len(made):,} entries, {path.stat().st_size / 1e6:.1f} MB", start)
        for name, query in QUERIES.items():
            start = time.perf_counter()
            with duckdb.connect() as connection:
                lines = connection.execute(query, {"path": str(path)}).fetchall()
            timed(f"query: {name}, {len(lines):,} lines", start)
        start = time.perf_counter()
        assert len(read(path)) == len(made)
        timed("all entries read, as each night does", start)


if __name__ == "__main__":
    main()
