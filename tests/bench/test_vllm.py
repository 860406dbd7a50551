"""The vLLM engine around a stand-in for the server, that starts, talks, hangs and dies as the real one does; and its log, as recorded."""

import json
import os
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from msgspec import structs

from bench.backends import BackendError, BackendOutOfMemory, BackendTimeout, RankRequest, Request, Sampling, Turn
from bench.backends.vllm import ServerDied, VllmBackend, command, environment
from bench.backends.vllm_log import LogFacts, read_line
from bench.config import VllmSettings
from bench.safetensors import SafetensorsError, TensorFacts, read_folder
from results.records import Continuation

NEW_LOG = """\
(EngineCore pid=1) INFO 11-22 19:25:15 [core.py:133] Initializing a V1 LLM engine (v0.32.0) with config: model='/m', tokenizer='/m', \
dtype=torch.bfloat16, max_seq_len=1024, load_format=auto, tensor_parallel_size=1, pipeline_parallel_size=1, quantization=None, \
enforce_eager=True, kv_cache_dtype=auto, device_config=cuda, enable_prefix_caching=False
INFO 08-18 09:59:50 [gpu_model_runner.py:5150] Model loading took 0.2511 GiB memory and 1.283451 seconds
INFO 08-18 09:59:58 [gpu_worker.py:760] Available KV cache memory: 20.93 GiB
INFO 08-18 10:00:00 [kv_cache_utils.py:2327] GPU KV cache size: 457,343 tokens, Maximum concurrency for 4,096 tokens per request: 111.66x
INFO 08-18 10:00:09 [gpu_model_runner.py:6001] Graph capturing finished in 9 secs, took 0.55 GiB"""

OLD_V1_LOG = """\
INFO 08-18 09:59:50 [gpu_model_runner.py:1700] Model loading took 0.2511 GiB and 1.283451 seconds
INFO 08-18 09:59:58 [gpu_worker.py:276] Available KV cache memory: 20.93 GiB
INFO 08-18 10:00:00 [kv_cache_utils.py:716] GPU KV cache size: 457,343 tokens
INFO 08-18 10:00:00 [kv_cache_utils.py:720] Maximum concurrency for 4,096 tokens per request: 111.66x"""

V0_LOG = """\
INFO 03-25 21:32:47 model_runner.py:1116] Loading model weights took 14.9888 GB
INFO 03-25 21:32:48 worker.py:266] the current vLLM instance can use total_gpu_memory (22.07GiB) x gpu_memory_utilization (0.90) = 19.86GiB
INFO 03-25 21:32:48 worker.py:266] model weights take 14.99GiB; non_torch_memory takes 0.05GiB; PyTorch activation peak memory takes \
0.22GiB; the rest of the memory reserved for KV Cache is 4.60GiB.
INFO 03-25 21:32:48 executor_base.py:108] # CUDA blocks: 2356, # CPU blocks: 2048
INFO 03-25 21:32:48 executor_base.py:113] Maximum concurrency for 131072 tokens per request: 0.29x"""

FAKE = """\
#!{python}
import json, os, subprocess, sys, time
sys.path.insert(0, {tests!r})
from hostile_server import DONE, HostileServer, Reply, as_json, delta, event, usage

how = os.environ["HOW"]
options = dict(a[2:].split("=", 1) for a in sys.argv[1:] if a.startswith("--") and "=" in a)
print({log!r}, flush=True)
json.dump({{"argv": sys.argv, "pid": os.getpid(), "environment": dict(os.environ)}}, open(os.environ["SAID"], "w"))
if how == "dies in load":
    print("ValueError: this model is not supported\\nRuntimeError: Engine core initialization failed. See root cause above.", flush=True)
    sys.exit(3)
if how == "no memory in load":
    print("ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`.", flush=True)
    sys.exit(1)
if how == "hangs in load":
    time.sleep(60)
stubborn = "signal.signal(15, signal.SIG_IGN)" if how == "stubborn" else "0"
engine = subprocess.Popen([sys.executable, "-c", f"import signal, time; {{stubborn}}; time.sleep(60)"])
open(os.environ["SAID"] + ".engine", "w").write(str(engine.pid))

def answer(body):
    if how == "dies":
        print("ValueError: illegal instruction", flush=True)
        os._exit(9)
    if how == "no memory":
        print("torch.OutOfMemoryError: CUDA out of memory.", flush=True)
        os._exit(1)
    if how == "fails once":
        return as_json({{"error": {{"message": "too long"}}}}, status=400)
    return Reply(delta("stop", content="A", token_ids=[1]), usage(2, 1), DONE)

def rank(body):
    return as_json({{"choices": [
        {{"index": i, "prompt_logprobs": [None, {{"7": {{"logprob": -1.0}}}}, {{"8": {{"logprob": -2.0 - i}}}}]}}
        for i in range(len(body["prompt"]))
    ], "usage": {{"prompt_tokens": 6}}}})

server = HostileServer(int(options["port"]))
server.answers = {{
    "/v1/models": as_json({{"data": [{{"id": options["served-model-name"], "max_model_len": 64}}]}}),
    "/health": as_json({{}}), "/version": as_json({{"version": "0.32.0"}}),
    "/tokenize": as_json({{"tokens": [1, 7]}}), "/v1/completions": rank, "/v1/chat/completions": answer,
}}
time.sleep(60)
"""

Start = Callable[..., VllmBackend]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with one tensor of 4 x 8 numbers."""
    folder = tmp_path / "tiny-model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    write_safetensors(folder / "model.safetensors", {"w": ("BF16", [4, 8], 64)})
    return folder


@pytest.fixture
def start(tmp_path: Path, model: Path, request: pytest.FixtureRequest) -> Start:
    def begin(how: str, **settings: Any) -> VllmBackend:
        fake = tmp_path / "python"
        fake.write_text(FAKE.format(python=sys.executable, tests=str(Path(__file__).parent), log=NEW_LOG))
        fake.chmod(0o755)
        own = {"HOW": how, "SAID": str(tmp_path / "said")}
        backend = VllmBackend(VllmSettings(model_path=str(model), python=str(fake), environment=own, **settings))
        request.addfinalizer(backend.close)
        return backend

    return begin


def write_safetensors(path: Path, tensors: dict[str, tuple[str, list[int], int]], cut: int = 0) -> None:
    header, place = {}, 0
    for name, (kind, shape, size) in tensors.items():
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [place, place + size]}
        place += size
    data = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    path.write_bytes(struct.pack("<Q", len(data)) + data + bytes(place - cut))


def said(tmp_path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tmp_path / "said").read_text())
    return found


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def ask(backend: VllmBackend) -> list[str]:
    asked = Request(id="q", turns=(Turn("user", "?"),), sampling=Sampling(max_tokens=4))
    return [chunk.text for chunk in backend.stream(asked)]


def test_a_server_is_started_used_and_ended_with_all_its_processes(start: Start, tmp_path: Path) -> None:
    backend = start("well", slots=4)
    assert ask(backend) == ["A", ""]
    ranking = backend.rank(RankRequest(id="q", context="c", continuations=(" a", " b")))
    assert ranking.continuations == (Continuation(-2.0, 1), Continuation(-3.0, 1))
    backend.close()
    assert gone(said(tmp_path)["pid"])
    assert gone(int((tmp_path / "said.engine").read_text()))


def test_the_record_joins_files_log_and_server(start: Start) -> None:
    info = start("well", slots=4).describe()
    assert (info.engine, info.engine_version, info.device, info.model) == ("vllm", "0.32.0", "cuda", "tiny-model")
    assert (info.parameters, info.weight_bytes, info.bits_per_weight, info.quantisation) == (32, 64, 16.0, "bf16")
    assert (info.context, info.max_concurrency) == (64, 4)
    assert info.weights_sha256 is not None
    assert info.memory == {
        "weights": round(0.2511 * (1 << 30)),
        "graphs": round(0.55 * (1 << 30)),
        "cache": round(20.93 * (1 << 30)),
    }
    assert info.cache_bytes_per_token == pytest.approx(49_139.08, abs=0.01)
    assert info.settings["dtype"] == "torch.bfloat16"


def test_the_key_is_in_the_environment_and_nowhere_else(start: Start, tmp_path: Path) -> None:
    backend = start("well")
    told = said(tmp_path)
    key = told["environment"]["VLLM_API_KEY"]
    assert len(key) > 30
    assert key not in " ".join(told["argv"])
    assert key not in repr(backend.describe())
    assert told["environment"]["VLLM_NO_USAGE_STATS"] == "1"
    assert "PYTHONPATH" not in told["environment"]


@pytest.mark.parametrize(
    ("how", "kind", "words"),
    [
        (
            "dies in load",
            BackendError,
            "ended while loading with status 3; it said: ValueError: this model is not supported",
        ),
        ("no memory in load", BackendOutOfMemory, "ran out of memory while loading: ValueError: No available memory"),
        ("hangs in load", BackendTimeout, "not ready after 1.5 s"),
    ],
)
def test_a_server_that_does_not_start_says_why(
    start: Start, how: str, kind: type[Exception], words: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=words):
        start(how, start_timeout_s=1.5 if how == "hangs in load" else 30.0)
    assert gone(said(tmp_path)["pid"])


@pytest.mark.parametrize(
    ("how", "kind", "words"),
    [
        ("dies", ServerDied, "ended while it was used with status 9; it said: ValueError: illegal instruction"),
        ("no memory", BackendOutOfMemory, "CUDA out of memory"),
        ("fails once", BackendError, "HTTP 400, the request failed: too long"),
    ],
)
def test_a_dead_server_is_told_from_a_failed_request(start: Start, how: str, kind: type[Exception], words: str) -> None:
    backend = start(how)
    with pytest.raises(kind, match=words):
        ask(backend)


def test_the_server_and_its_engine_end_with_a_killed_worker(start: Start, tmp_path: Path) -> None:
    """The guard's stdin closes when the worker is gone; here it is closed as the kernel would."""
    backend = start("well")
    backend._process._process.stdin.close()  # type: ignore[union-attr]
    assert backend._process.ended(30.0)
    assert gone(said(tmp_path)["pid"])
    assert gone(int((tmp_path / "said.engine").read_text()))


def test_a_killed_server_takes_its_engine_with_it(start: Start, tmp_path: Path) -> None:
    backend = start("stubborn")
    os.kill(said(tmp_path)["pid"], 9)
    with pytest.raises(ServerDied, match="status 137"):
        ask(backend)
    limit = time.monotonic() + 20
    while not gone(int((tmp_path / "said.engine").read_text())):
        assert time.monotonic() < limit
        time.sleep(0.05)


def test_a_python_that_is_not_there_is_named(model: Path) -> None:
    with pytest.raises(BackendError, match=r"ended while loading|cannot be started"):
        VllmBackend(VllmSettings(model_path=str(model), python="/nowhere/python"))


def test_a_model_that_is_not_there_is_named() -> None:
    with pytest.raises(BackendError, match="/nowhere: no such folder"):
        VllmBackend(VllmSettings(model_path="/nowhere"))


def test_every_setting_is_passed_on() -> None:
    settings = VllmSettings(
        model_path="/models/r1",
        python="/v/bin/python",
        tensor_parallel_size=8,
        quantization="fp8",
        reasoning_parser="deepseek_r1",
        enforce_eager=True,
        prefix_caching=True,
        extra_args=("--x",),
    )
    line = command(settings, 4000)
    assert line[:3] == ["/v/bin/python", "-m", "vllm.entrypoints.openai.api_server"]
    assert {"--model=/models/r1", "--served-model-name=r1", "--port=4000", "--tensor-parallel-size=8"} < set(line)
    assert {"--quantization=fp8", "--reasoning-parser=deepseek_r1", "--enforce-eager", "--enable-prefix-caching"} < set(
        line
    )
    assert {"--host=127.0.0.1", "--generation-config=vllm", "--max-num-seqs=64"} < set(line)
    assert line[-1] == "--x"
    assert "--no-enable-prefix-caching" in command(structs.replace(settings, prefix_caching=False), 1)
    made = environment(VllmSettings(cpu_kv_gib=3, environment={"HF_HUB_OFFLINE": "0", "VLLM_API_KEY": "x"}), "key")
    assert (made["VLLM_CPU_KVCACHE_SPACE"], made["HF_HUB_OFFLINE"], made["VLLM_API_KEY"]) == ("3", "0", "key")


def read(log: str) -> LogFacts:
    facts = LogFacts()
    for line in log.splitlines():
        facts = read_line(facts, line)
    return facts


def gib(value: float) -> int:
    return round(value * (1 << 30))


def test_the_log_of_new_versions() -> None:
    assert read(NEW_LOG) == LogFacts(
        weights_bytes=gib(0.2511),
        ranks_told=1,
        graphs_bytes=gib(0.55),
        cache_bytes=gib(20.93),
        cache_tokens=457_343,
        max_concurrency=111.66,
        engine={
            "dtype": "torch.bfloat16",
            "max_seq_len": "1024",
            "tensor_parallel_size": "1",
            "pipeline_parallel_size": "1",
            "kv_cache_dtype": "auto",
            "load_format": "auto",
            "enforce_eager": "True",
            "enable_prefix_caching": "False",
            "device_config": "cuda",
        },
    )


def test_the_log_of_older_versions() -> None:
    assert read(OLD_V1_LOG) == structs.replace(read(NEW_LOG), graphs_bytes=None, engine={})
    assert read(V0_LOG) == LogFacts(
        weights_bytes=gib(14.9888),
        ranks_told=1,
        activation_bytes=gib(0.22),
        other_bytes=gib(0.05),
        cache_bytes=gib(4.60),
        cache_blocks=2356,
        max_concurrency=0.29,
    )


def test_a_cpus_cache_is_read_and_weights_of_several_ranks_add_up() -> None:
    line = "INFO [kv_cache_utils.py:2327] CPU KV cache size: 23,296 tokens, Maximum concurrency for 1,024 tokens per request: 22.75x"
    assert read(line) == LogFacts(cache_tokens=23_296, max_concurrency=22.75)
    ranks = "(Worker_TP0) Model loading took 2.0 GiB memory and 1 seconds\n(Worker_TP1) Model loading took 2.0 GiB memory and 1 seconds"
    assert read(ranks) == LogFacts(weights_bytes=gib(4.0), ranks_told=2)


def test_a_folder_of_safetensors_tells_bytes_parameters_and_type(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "a.safetensors", {"w": ("F8_E4M3", [16, 16], 256), "w_scale_inv": ("F32", [1], 4)})
    write_safetensors(tmp_path / "b.safetensors", {"norm": ("BF16", [16], 32)})
    facts = read_folder(tmp_path)
    assert facts == TensorFacts(tensor_bytes=292, parameters=272, label="fp8")
    assert facts.bits_per_weight == pytest.approx(8 * 292 / 272)


def test_packed_weights_have_no_number_of_parameters(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "a.safetensors", {"w.qweight": ("I32", [16, 2], 128), "w.scales": ("F16", [16], 32)})
    assert read_folder(tmp_path) == TensorFacts(tensor_bytes=160, parameters=None, label=None)


def test_bad_safetensors_are_named(tmp_path: Path) -> None:
    with pytest.raises(SafetensorsError, match=r"no \*\.safetensors"):
        read_folder(tmp_path)
    write_safetensors(tmp_path / "a.safetensors", {"w": ("F32", [16], 64)}, cut=10)
    with pytest.raises(SafetensorsError, match="10 bytes are missing"):
        read_folder(tmp_path)
    (tmp_path / "a.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{not json at all")
    with pytest.raises(SafetensorsError, match="header is not valid"):
        read_folder(tmp_path)
    (tmp_path / "a.safetensors").write_bytes(b"GGUF")
    with pytest.raises(SafetensorsError, match="cut short"):
        read_folder(tmp_path)
