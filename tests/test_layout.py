"""Who may import whom, and what the command line may load."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import bench
import hardware
import results
import tasks

ROOT = Path(__file__).parents[1]
OURS = {"bench", "tasks", "hardware", "results"}
STATISTICS = {"scipy", "pandas", "matplotlib"}
METERS = {"pynvml", "amdsmi"}
HEAVY = {"torch", "transformers", "vllm", "llama_cpp", "openai", *METERS}
HOME = {
    "torch": {"transformers.py"},
    "transformers": {"transformers.py"},
    "vllm": {"vllm.py"},
    "llama_cpp": {"llama_cpp.py"},
    "openai": set(),
    "pynvml": {"nvml.py"},
    "amdsmi": {"amd.py"},
}


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return {name.split(".")[0] for name in names}


def sources(*packages: str) -> list[Path]:
    return sorted(p for package in packages for p in (ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", ["tasks", "hardware", "results"])
def test_the_three_parts_know_only_themselves(package: str) -> None:
    for path in sources(package):
        assert imported(path) & OURS <= {package}, path


@pytest.mark.parametrize("module", ["worker.py", "drive.py", "backends"])
def test_the_measured_side_knows_no_task_and_no_meter(module: str) -> None:
    path = ROOT / "bench" / module
    for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
        assert not imported(file) & {"tasks", "hardware"}, file


def test_heavy_libraries_are_imported_only_in_the_file_named_after_them() -> None:
    for path in sources(*OURS):
        for library in imported(path) & HEAVY:
            assert path.name in HOME[library], f"{path} imports {library}"


def test_the_command_line_starts_without_an_engine() -> None:
    code = f"import sys, bench.cli, bench.session; print(*({HEAVY!r} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == ""


def test_planning_loads_neither_an_engine_nor_statistics() -> None:
    code = (
        "import sys; from bench.cli import main; status = main(['plan', 'demo', '--json']); "
        f"print(status, *{HEAVY - METERS | STATISTICS!r} & set(sys.modules), file=sys.stderr)"
    )
    planned = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert planned.stderr.strip() == "0"


def test_no_stranger_shadows_a_part() -> None:
    assert {Path(str(m.__file__)).parents[1] for m in (bench, tasks, hardware, results)} == {ROOT}


def test_a_reading_and_its_record_have_the_same_fields() -> None:
    """Two types, because neither package imports the other; one meaning."""
    from hardware import MeterInfo, Reading
    from results import records

    assert Reading.__struct_fields__ == records.Tick.__struct_fields__
    assert MeterInfo.__struct_fields__ == records.MeterInfo.__struct_fields__
