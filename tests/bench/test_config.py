"""Suites are decoded strictly; every mistake is one sentence that names the place."""

from pathlib import Path

import pytest

from bench.config import ConfigError, Deployment, Load, Suite, TaskOptions, engine_settings, load_suite, suite_from

SCRIPTED = {"name": "a", "backend": "scripted"}


def suite(**changes: object) -> dict[str, object]:
    return {"name": "s", "tasks": ["clinical_qa_en"], "deployments": [SCRIPTED], **changes}


def test_a_suite_is_read_with_its_defaults() -> None:
    assert suite_from(suite(), "x.toml") == Suite(
        name="s", tasks=("clinical_qa_en",), deployments=(Deployment(name="a", backend="scripted"),)
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"taskz": []}, ("x.toml", "taskz")),
        ({"repeats": "two"}, ("x.toml", "repeats")),
        ({"tasks": []}, ("`tasks` is empty",)),
        ({"tasks": ["a", "a"]}, ("named twice",)),
        ({"deployments": []}, ("no [[deployments]]",)),
        ({"deployments": [SCRIPTED, SCRIPTED]}, ("used twice: a",)),
        ({"deployments": [{**SCRIPTED, "settings": {"delya_s": 1}}]}, ("`a`", "delya_s")),
        ({"deployments": [{**SCRIPTED, "backend": "telepathy"}]}, ("telepathy", "deployment `a`")),
        ({"deployments": [{**SCRIPTED, "matrix": {"quantise": []}}]}, ("matrix", "non-empty")),
        ({"load": [{"concurrency": 1, "rate_per_s": 2.0}]}, ("either",)),
        ({"load": [{"concurrency": 0}]}, ("`load`, number 1", "concurrency")),
    ],
)
def test_a_mistake_is_named_with_its_place(changes: dict[str, object], words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        suite_from(suite(**changes), "x.toml")
    for word in words:
        assert word in str(caught.value)


def test_a_matrix_expands_to_the_product_of_its_values() -> None:
    made = suite_from(
        suite(deployments=[{**SCRIPTED, "matrix": {"quantise": ["F16", "Q8_0"], "settings.slots": [1, 2]}}]), "x.toml"
    )
    assert [(d.name, d.quantise, d.settings) for d in made.deployments] == [
        ("a-f16-1", "F16", {"slots": 1}),
        ("a-f16-2", "F16", {"slots": 2}),
        ("a-q8_0-1", "Q8_0", {"slots": 1}),
        ("a-q8_0-2", "Q8_0", {"slots": 2}),
    ]


def test_tasks_may_be_tables_with_options() -> None:
    made = suite_from(suite(tasks={"medqa": {"data": "m.jsonl", "load": [{"rate_per_s": 0.5}]}}), "x.toml")
    assert made.task_options() == {"medqa": TaskOptions(data="m.jsonl", load=(Load(rate_per_s=0.5),))}


def test_vllm_takes_its_interpreter_from_the_deployment() -> None:
    settings = engine_settings(Deployment(name="v", backend="vllm", python="/opt/vllm/bin/python"))
    assert getattr(settings, "python", None) == "/opt/vllm/bin/python"


@pytest.mark.parametrize(("content", "why"), [(b"name = ", "not valid TOML"), (b"\xff\xfe", "not UTF-8 at byte 0")])
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"broken\.toml: {why}"):
        load_suite(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read"):
        load_suite(tmp_path / "none.toml")
