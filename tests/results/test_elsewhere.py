"""Answers that were recorded elsewhere, and servers on other machines: what was not measured here stays empty."""

from pathlib import Path

from bench.cli import OK, main
from results.rows import read_rows


def test_recorded_answers_have_no_speed_or_energy_of_this_machine(tmp_path: Path) -> None:
    ids = "\n".join(
        f'{{"id": "cqa-en-{n:03}", "choice": "A", "seconds": 2.5, "output_tokens": 9}}' for n in range(1, 201)
    )
    (tmp_path / "answers.jsonl").write_text(ids + "\n")
    (tmp_path / "suite.toml").write_text(
        'name = "r"\nidle_s = 0.0\nlimit = 20\ntasks = ["clinical_qa_en"]\n'
        '[[deployments]]\nname = "a"\nbackend = "recorded"\nsettings = { path = "answers.jsonl" }\n'
    )
    assert main(["run", str(tmp_path / "suite.toml"), "--out", str(tmp_path / "runs")]) == OK
    (row,) = read_rows(next((tmp_path / "runs").glob("*/rows.csv")))
    assert (row.samples, row.output_tokens, row.scoring) == (20, 180, "generate")
    assert (row.seconds, row.output_tokens_per_s, row.energy_j, row.power_class, row.host_memory_bytes) == (None,) * 5
    assert row.e2e_p50_ms == 2500.0
    assert row.cost_per_1k_samples is None
