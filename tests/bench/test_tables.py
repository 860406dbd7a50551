"""What a person sees of tables, on wide and on narrow terminals."""

from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from bench.cli import OK, USER_ERROR, main
from bench.config import load_suite
from bench.session import Wishes, prepare
from bench.show import LiveWatcher
from bench.tables import show
from results.records import StepStarted

Suite = Callable[..., Path]


def shown(width: int) -> str:
    table = Table(title="demo: 1 cells")
    for name in ("cell", "engine", "memory (predicted)", "note"):
        table.add_column(name)
    table.add_row("smollm2-135m-f16", "llama_cpp", "0.47 GiB", "")
    out = StringIO()
    show(Console(file=out, width=width), table)
    return out.getvalue()


def test_a_table_stands_where_no_word_must_be_cut() -> None:
    assert "│ smollm2-135m-f16 │ llama_cpp │" in shown(80)


def test_a_narrow_terminal_gets_a_paragraph_for_each_row() -> None:
    assert shown(40).splitlines() == [
        "demo: 1 cells",
        "smollm2-135m-f16: engine llama_cpp; ",
        "memory (predicted) 0.47 GiB",
    ]


def test_how_to_install_an_engine_is_shown_to_the_letter(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["host"]) == OK
    told = capsys.readouterr().out
    assert "pip install -e '.[llama-cpp]'" in told or "llama_cpp     │ yes" in told
    assert "pip install -e '.'" not in told


def test_a_suite_given_without_a_command_is_told_how_to_run_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ours.toml"]) == USER_ERROR
    assert capsys.readouterr().err == "error: No such command 'ours.toml'; to run a suite: run ours.toml (see --help)\n"


def test_a_deployments_name_is_never_taken_for_markup(
    write_suite: Suite, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"a[/b]": {"reply": "x"}, ":smile:": {"reply": "x"}}
    prepared = prepare(load_suite(write_suite(head="limit = 2", **names)), tmp_path, Wishes())
    watcher = LiveWatcher(prepared.cells)
    try:
        for cell in prepared.cells:
            watcher.cell(cell)
            watcher.event(cell, StepStarted("clinical_qa_en@c1", 1))
    finally:
        watcher.close()
    said = capsys.readouterr().err
    assert "cell 1/2 a[/b]" in said
    assert "cell 2/2 :smile:" in said
