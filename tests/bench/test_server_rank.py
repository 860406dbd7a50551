"""Ranking through servers, each of a kind that exists: its way is found and proved, or refused with the reason."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hostile_server import HostileServer, Reply, as_json, hostile_server

from bench.backends import BackendError, Ranking, RankRequest
from bench.backends.openai_server import OpenAIServerBackend
from bench.backends.server_rank import split_spaces
from bench.config import OpenAIServerSettings
from results.records import Continuation

REQUEST = RankRequest(id="q", context="Where is it?\nAnswer:", continuations=(" Rome", " in Rome"))


@pytest.fixture
def server() -> Iterator[HostileServer]:
    with hostile_server() as running:
        yield running


def words(text: str) -> list[str]:
    """The model of these tests tokenises by words that keep the space before them."""
    return [w for w in text.replace(" ", "\0 ").replace("\n", "\0\n").split("\0") if w]


def logprob(word: str) -> float:
    """ " Rome" is what the model says next; everything else is as unlikely as it is long."""
    return -0.5 if word == " Rome" else -float(len(word))


def number(word: str) -> int:
    return int.from_bytes(word.encode(), "big") % 1_000_003


def generated(prompt: str, forced: str | None = None) -> dict[str, Any]:
    word = forced or " Rome"
    return {"text": word, "logprobs": {"tokens": [word], "token_logprobs": [logprob(word)]}}


def reply(choices: list[dict[str, Any]], prompts: list[str]) -> Reply:
    numbered = [{"index": i, **choice} for i, choice in enumerate(choices)]
    return as_json({"choices": numbered[::-1], "usage": {"prompt_tokens": sum(len(words(p)) for p in prompts)}})


def prompts_of(body: dict[str, Any]) -> list[str]:
    prompt = body["prompt"]
    return prompt if isinstance(prompt, list) else [prompt]


def vllm(body: dict[str, Any]) -> Reply:
    """Log-probabilities by token id; knows no echo."""
    choices = [generated(p) for p in prompts_of(body)]
    if body.get("prompt_logprobs") == 0:
        for choice, prompt in zip(choices, prompts_of(body), strict=True):
            told = [{str(number(w)): {"logprob": logprob(w)}} for w in words(prompt)]
            choice["prompt_logprobs"] = [None, *told[1:]]
    return reply(choices, prompts_of(body))


def old_completions(shifted: bool = False, bos: str = "") -> Callable[[dict[str, Any]], Reply]:
    """Echoes the prompt; shifted as by llama-cpp-python for a model without BOS: each word as likely as its own repetition."""

    def answer(body: dict[str, Any]) -> Reply:
        choices = [generated(p) for p in prompts_of(body)]
        if body.get("echo"):
            for choice, prompt in zip(choices, prompts_of(body), strict=True):
                tokens = [*([bos] if bos else []), *words(prompt), " Rome"]
                values = [-9.0 if shifted else logprob(w) for w in tokens]
                choice["logprobs"] = {"tokens": tokens, "token_logprobs": [None, *values[1:]]}
        return reply(choices, prompts_of(body))

    return answer


def llama_cpp_python(biased: bool = False) -> Callable[[dict[str, Any]], Reply]:
    """Takes one text at a time; a forced token comes with its log-probability before the bias, as it should."""

    def answer(body: dict[str, Any]) -> Reply:
        if body.get("echo") or isinstance(body["prompt"], list):
            return as_json({"error": {"message": "only texts"}}, status=500)
        bias = body.get("logit_bias", {})
        forced = next((WORDS[int(token)] for token in bias), None)
        choice = generated(body["prompt"], forced)
        if biased and bias:
            choice["logprobs"]["token_logprobs"] = [-0.0001]
        return reply([choice], [body["prompt"]])

    return answer


WORDS: dict[int, str] = {}


def tokenize(field: str) -> Callable[[dict[str, Any]], Reply]:
    def answer(body: dict[str, Any]) -> Reply:
        WORDS.update({number(w): w for w in words(body[field])})
        return as_json({"tokens": [number(w) for w in words(body[field])]})

    return answer


def rank(server: HostileServer) -> tuple[Ranking, tuple[str, ...]]:
    engine = OpenAIServerBackend(OpenAIServerSettings(base_url=server.url, can_rank=True))
    try:
        return engine.rank(REQUEST), engine.describe().notes
    finally:
        engine.close()


RIGHT = (Continuation(-0.5, 1), Continuation(-3.5, 2))


def test_vllm_is_ranked_through_prompt_logprobs(server: HostileServer) -> None:
    server.answers |= {"/v1/completions": vllm, "/tokenize": tokenize("prompt")}
    ranking, notes = rank(server)
    assert ranking == Ranking(continuations=RIGHT, prompt_tokens=11)
    assert notes == ("ranked through prompt_logprobs of /v1/completions",)


@pytest.mark.parametrize("bos", ["", "<s>"])
def test_the_old_completions_api_is_ranked_through_its_echo(server: HostileServer, bos: str) -> None:
    server.answers["/v1/completions"] = old_completions(bos=bos)
    ranking, notes = rank(server)
    assert ranking.continuations == RIGHT
    assert notes == ("ranked through echo of /v1/completions",)


def test_log_probabilities_that_are_shifted_by_one_token_are_not_believed(server: HostileServer) -> None:
    server.answers["/v1/completions"] = old_completions(shifted=True)
    with pytest.raises(BackendError) as caught:
        rank(server)
    assert "echo: log-probabilities of the prompt are not those of generating it" in str(caught.value)
    assert "set `can_rank = false`" in str(caught.value)


@pytest.mark.parametrize(("path", "field"), [("/extras/tokenize", "input"), ("/tokenize", "content")])
def test_llama_cpps_servers_are_ranked_token_by_token(server: HostileServer, path: str, field: str) -> None:
    server.answers |= {"/v1/completions": llama_cpp_python(), path: tokenize(field)}
    if path == "/tokenize":
        server.answers[path] = lambda body: tokenize("content")(body) if "content" in body else as_json({}, status=400)
    ranking, notes = rank(server)
    assert ranking.continuations == RIGHT
    assert notes == ("ranked through logit_bias of /v1/completions",)


def test_log_probabilities_after_the_bias_are_not_believed(server: HostileServer) -> None:
    server.answers |= {"/v1/completions": llama_cpp_python(biased=True), "/extras/tokenize": tokenize("input")}
    with pytest.raises(BackendError, match="logit_bias: log-probabilities"):
        rank(server)


def test_a_server_that_only_chats_cannot_be_told_to_rank(server: HostileServer) -> None:
    with pytest.raises(BackendError, match="cannot rank"):
        rank(server)


def test_an_unknown_log_probability_fails_the_request_and_is_no_zero(server: HostileServer) -> None:
    server.answers |= {"/v1/completions": vllm, "/tokenize": tokenize("prompt")}
    engine = OpenAIServerBackend(OpenAIServerSettings(base_url=server.url, can_rank=True))
    with pytest.raises(BackendError, match="does not tell one log-probability"):
        engine.rank(RankRequest(id="q", context="", continuations=("a",)))
    engine.close()


def test_spaces_that_end_the_context_go_to_the_continuation() -> None:
    assert split_spaces(RankRequest(id="q", context="a: ", continuations=("b", "c"))) == ("a:", (" b", " c"))


def test_the_models_of_these_tests_add_up() -> None:
    assert words("Where is it?\nAnswer: in Rome") == ["Where", " is", " it?", "\nAnswer:", " in", " Rome"]
    assert math.fsum(logprob(w) for w in words(" in Rome")) == -3.5
