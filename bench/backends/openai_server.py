"""Any server that speaks OpenAI's chat or completions API: vLLM, SGLang, llama-server, Ollama, MindIE, an appliance.

- `chat`: the server applies the model's template. A prefill is sent as an assistant turn to be continued, with vLLM's and SGLang's
  `continue_final_message`; llama-server and Ollama continue a last assistant turn by themselves. llama-server refuses one (HTTP 400) where
  its template can switch thinking off: `extra_body = { chat_template_kwargs = { enable_thinking = false } }` there.
- `completions`: no template is applied; turns are joined by an empty line and the prefill follows. For base models.
- Sampling beyond temperature, top-p, seed and stop strings (top-k, min-p, repetition penalties) is the server's own default unless
  `extra_body` names it; its keys go over ours. llama-cpp-python's defaults are not neutral: `{top_k = 0, min_p = 0, repeat_penalty = 1}`.
- A thinking budget is sent as vLLM's `thinking_token_budget`; servers that do not know it ignore or refuse it.
- Speed requests (`exact_prompt_tokens`) go to `/v1/completions` as token ids with `ignore_eos`; a server whose usage tells another
  number of tokens than asked has failed the request.
"""

import random
from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from bench.backends import BackendError, Chunk, Ranking, RankRequest, Request
from bench.backends import vllm_metrics as metrics
from bench.backends.server_client import Server, decoded, key_from
from bench.backends.server_rank import PromptLogprobs, Ranker, find_ranker
from bench.backends.server_reply import Reply, ServerSaid
from bench.config import OpenAIServerSettings
from results.records import EngineInfo, EngineState

TOKEN_IDS = range(1_000, 10_000)
"""Of arbitrary prompts: in every vocabulary of a real model, and no special token in any of them."""


class _ModelMeta(Struct):
    """llama-server's."""

    n_params: int | None = None
    size: int | None = None


class _Model(Struct):
    id: str
    owned_by: str | None = None
    max_model_len: int | None = None
    meta: _ModelMeta | None = None


class _Models(Struct):
    data: list[_Model]


class _Version(Struct):
    version: str | None = None


class OpenAIServerBackend:
    """Raises `BackendError` at once when the server cannot be reached or used as the settings ask."""

    def __init__(
        self, settings: OpenAIServerSettings, *, api_key: str | None = None, ranks_by_prompt_logprobs: bool = False
    ) -> None:
        self._settings = settings
        self.server = Server(
            settings.base_url,
            key=api_key or key_from(settings.api_key_env),
            remote=settings.remote,
            connections=settings.slots,
            connect_timeout_s=settings.connect_timeout_s,
            stall_timeout_s=settings.stall_timeout_s,
        )
        self.max_concurrency = settings.slots
        try:
            self._model = self._find_model()
            self._ranker = self._find_ranker(ranks_by_prompt_logprobs)
            self._tells_state = self._cache_facts() != metrics.CacheFacts()
        except BaseException:
            self.server.close()
            raise

    def describe(self) -> EngineInfo:
        """Only what the server tells; nothing is inferred from a model's name."""
        facts, model = self._cache_facts(), self._model
        meta = model.meta or _ModelMeta()
        version = self.server.look("/version")
        return EngineInfo(
            engine="openai_server",
            engine_version=_version(version) if version is not None else None,
            device="server" if self.server.local else "remote",
            model=model.id,
            parameters=meta.n_params,
            weight_bytes=meta.size,
            bits_per_weight=8 * meta.size / meta.n_params if meta.size and meta.n_params else None,
            cache_bytes_per_token=facts.cache_bytes / facts.tokens if facts.cache_bytes and facts.tokens else None,
            context=self._settings.context or model.max_model_len,
            max_concurrency=self.max_concurrency,
            memory={"cache": facts.cache_bytes} if facts.cache_bytes is not None else {},
            settings={"api": self._settings.api, "owned_by": model.owned_by, "cache_tokens": facts.tokens},
            notes=tuple(self._notes()),
        )

    def state(self) -> EngineState | None:
        return metrics.state_of(self._cache_facts()) if self._tells_state else None

    def stream(self, request: Request) -> Iterator[Chunk]:
        path, body = self._asked(request)
        reply = Reply(prompt=body["prompt"] if isinstance(body.get("prompt"), str) else "")
        try:
            for event in self.server.events(path, body):
                yield from reply.read(event)
        except ServerSaid as error:
            said = self.server.quotable(str(error), body)
            raise BackendError(f"the server broke the answer off{': ' + said if said else ''}") from None
        last = reply.last()
        if request.exact_prompt_tokens is not None:
            _require_exact(request, last)
        yield last

    def rank(self, request: RankRequest) -> Ranking:
        if self._ranker is None:
            raise BackendError(f"{self.server.root} is not asked to rank (`can_rank` is false)")
        return self._ranker.rank(request)

    def close(self) -> None:
        self.server.close()

    def _asked(self, request: Request) -> tuple[str, dict[str, Any]]:
        """Path and body of a request."""
        sampling = request.sampling
        body: dict[str, Any] = {
            "model": self._model.id,
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sampling.seed,
        }
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if sampling.think_budget is not None:
            body["thinking_token_budget"] = sampling.think_budget
        if request.exact_prompt_tokens is not None:
            draw = random.Random(f"prompt:{sampling.seed}")
            body["prompt"] = draw.choices(TOKEN_IDS, k=request.exact_prompt_tokens)
            body |= {"ignore_eos": True, "min_tokens": sampling.max_tokens}
            return "/v1/completions", body | self._settings.extra_body
        if self._settings.api == "completions":
            body["prompt"] = "\n\n".join(turn.text for turn in request.turns) + request.prefill
            return "/v1/completions", body | self._settings.extra_body
        body["messages"] = [{"role": turn.role, "content": turn.text} for turn in request.turns]
        if request.prefill:
            body["messages"].append({"role": "assistant", "content": request.prefill})
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        return "/v1/chat/completions", body | self._settings.extra_body

    def _find_model(self) -> _Model:
        """The model named in the settings, else the only one the server lists."""
        name = self._settings.model_name
        status, reply = self.server.get("/v1/models")
        if status in (401, 403):
            raise BackendError(
                f"{self.server.url}: HTTP {status}, the server refuses the key; name it in `api_key_env`"
            )
        listed = decoded(reply, _Models).data if status == 200 else []
        if name:
            return next((model for model in listed if model.id == name), _Model(id=name))
        if len(listed) != 1:
            raise BackendError(
                f"{self.server.url} lists {len(listed)} models; name one as `model_name` in the settings"
            )
        return listed[0]

    def _find_ranker(self, by_prompt_logprobs: bool) -> Ranker | None:
        if by_prompt_logprobs:
            return PromptLogprobs(self.server, self._model.id)
        return find_ranker(self.server, self._model.id) if self._settings.can_rank else None

    def _cache_facts(self) -> metrics.CacheFacts:
        return metrics.parse((self.server.look("/metrics") or b"").decode("utf-8", "replace"))

    def _notes(self) -> Iterator[str]:
        if self._settings.api == "completions":
            yield "completions: no chat template is applied"
        if self._ranker:
            yield f"ranked through {self._ranker.name} of /v1/completions"
        if self._settings.extra_body:
            yield f"sent with every request: {', '.join(sorted(self._settings.extra_body))}"


def _version(reply: bytes) -> str | None:
    try:
        return decoded(reply, _Version).version
    except BackendError:
        return None  # some other page at that address


def _require_exact(request: Request, last: Chunk) -> None:
    """Raises `BackendError` when the server counted other lengths than those asked for."""
    usage = last.usage
    if usage is None or usage.prompt_tokens is None or usage.output_tokens is None:
        raise BackendError("the server tells no usage, so the lengths of a speed request are not known")
    asked = (request.exact_prompt_tokens, request.sampling.max_tokens)
    if (usage.prompt_tokens, usage.output_tokens) != asked:
        raise BackendError(
            f"the server counted {usage.prompt_tokens} tokens in and {usage.output_tokens} out instead of {asked[0]} and {asked[1]}"
        )
