"""What no source of ours may contain: pickle, code from a model's repository, shells, evaluation of text."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(p for package in ("bench", "tasks", "hardware", "results") for p in (ROOT / package).rglob("*.py"))
UNPICKLING = {
    "pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "joblib",
    "shelve",
    "marshal",
    "torch.load",
    "numpy.load",
    "np.load",
}
RUNNING = {"eval", "exec", "compile", "os.system", "os.popen"}


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


@pytest.fixture(scope="module")
def trees() -> dict[Path, ast.AST]:
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}


def test_nothing_is_unpickled(trees: dict[Path, ast.AST]) -> None:
    for path, tree in trees.items():
        for node in ast.walk(tree):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & UNPICKLING, path
        assert not {name for name, _ in calls(tree)} & UNPICKLING, path


def test_no_text_is_run_as_code(trees: dict[Path, ast.AST]) -> None:
    for path, tree in trees.items():
        for name, call in calls(tree):
            assert name not in RUNNING, path
            assert not any(k.arg == "shell" for k in call.keywords), path


def test_no_repository_of_a_model_may_bring_code(trees: dict[Path, ast.AST]) -> None:
    for path, tree in trees.items():
        for name, call in calls(tree):
            given = {k.arg: ast.unparse(k.value) for k in call.keywords}
            assert given.get("trust_remote_code", "False") == "False", path
            if name.endswith((".from_pretrained", "load_dataset")):
                assert "True" not in given.get("trust_remote_code", ""), path
        assert "--trust-remote-code" not in path.read_text(encoding="utf-8"), path


def test_only_known_weights_are_fetched() -> None:
    from bench.hub import FOLDER_FILES

    for name in (
        "pytorch_model.bin",
        "model.pt",
        "model.pkl",
        "model.ckpt",
        "modeling_x.py",
        "a/../../x.json",
        ".gitattributes",
    ):
        assert not FOLDER_FILES.fullmatch(name), name
    assert FOLDER_FILES.fullmatch("model-00001-of-00002.safetensors")


def test_servers_that_we_start_listen_on_loopback_with_a_key_of_their_own() -> None:
    from bench.backends.vllm import command, environment
    from bench.config import VllmSettings

    settings = VllmSettings(model_path="/m")
    line = command(settings, 4321)
    assert "--host=127.0.0.1" in line
    assert environment(settings, "a-key")["VLLM_API_KEY"] == "a-key"
    assert not any("a-key" in word for word in line)
    source = (ROOT / "bench" / "backends" / "vllm.py").read_text(encoding="utf-8")
    assert re.search(r"key, port = secrets\.token_urlsafe\(32\)", source)
