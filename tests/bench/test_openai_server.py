"""The OpenAI-compatible engine, against servers that behave and servers that do not: an error or a correct count, never a wrong number."""

import contextlib
import gzip
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hostile_server import (
    DONE,
    DROP,
    STALL,
    HostileServer,
    Piece,
    Reply,
    as_json,
    delta,
    event,
    hostile_server,
    usage,
)

from bench.backends import BackendError, BackendTimeout, Chunk, RankRequest, Request, Sampling, Turn, Usage
from bench.backends.openai_server import OpenAIServerBackend
from bench.config import Load, OpenAIServerSettings
from bench.drive import TokenCount, drive
from bench.job import JobStep
from results.records import Answered, EngineState

CHAT = "/v1/chat/completions"
KEY = "sk-never-to-be-seen-0123456789"


@pytest.fixture
def server() -> Iterator[HostileServer]:
    with hostile_server() as running:
        yield running


@contextlib.contextmanager
def backend(server: HostileServer, **settings: Any) -> Iterator[OpenAIServerBackend]:
    opened = OpenAIServerBackend(OpenAIServerSettings(base_url=server.url, **settings))
    try:
        yield opened
    finally:
        opened.close()


def request(name: str = "q", text: str = "well?", **more: Any) -> Request:
    sampling = Sampling(max_tokens=more.pop("max_tokens", 9), **more.pop("sampling", {}))
    return Request(id=name, turns=(Turn("user", text),), sampling=sampling, **more)


def chunks(server: HostileServer, *pieces: Piece, chunked: bool = True, **settings: Any) -> list[Chunk]:
    server.answers[CHAT] = Reply(*pieces, chunked=chunked)
    with backend(server, **settings) as engine:
        return list(engine.stream(request()))


def error(server: HostileServer, *pieces: Piece, **settings: Any) -> str:
    with pytest.raises(BackendError) as caught:
        chunks(server, *pieces, **settings)
    return str(caught.value).replace(server.url.removesuffix("/v1"), "URL")


def test_an_answer_comes_piece_by_piece_and_ends_with_the_counts_of_the_usage(server: HostileServer) -> None:
    told = chunks(
        server,
        delta(role="assistant", content=""),
        delta(content="All "),
        delta(content="well."),
        delta("stop"),
        usage(7, 3, prompt_tokens_details={"cached_tokens": 4}),
        DONE,
    )
    assert told == [
        Chunk(text="All ", tokens=1, counted=False),
        Chunk(text="well.", tokens=1, counted=False),
        Chunk(finish="stop", usage=Usage(prompt_tokens=7, cached_tokens=4, output_tokens=3, source="usage")),
    ]


def test_merged_chunks_are_counted_by_the_usage(server: HostileServer) -> None:
    told = chunks(server, delta(content="one two three four") + delta("length") + usage(5, 4) + DONE)
    assert (told[-1].finish, told[-1].usage) == ("length", Usage(prompt_tokens=5, output_tokens=4, source="usage"))


def test_without_usage_the_counts_are_unknown(server: HostileServer) -> None:
    told = chunks(server, delta(content="a"), delta(content="b"), delta("stop"), DONE)
    assert told[-1].usage == Usage(source="usage")


def test_a_usage_of_nothing_beside_text_is_not_believed(server: HostileServer) -> None:
    told = chunks(server, delta(content="a"), delta("stop"), usage(0, 0), DONE)
    assert told[-1].usage == Usage(source="usage")


def test_token_ids_count_exactly_also_without_usage(server: HostileServer) -> None:
    told = chunks(
        server,
        event({"prompt_token_ids": [1, 2, 3], "choices": [{"delta": {"role": "assistant", "content": ""}}]}),
        delta(content="one two", token_ids=[5, 6]),
        delta(token_ids=[7]),
        delta("stop", content="!", token_ids=[8]),
        DONE,
    )
    assert told == [
        Chunk(text="one two", tokens=2),
        Chunk(text="", tokens=1),
        Chunk(text="!", tokens=1),
        Chunk(finish="stop", usage=Usage(prompt_tokens=3, output_tokens=4, source="engine")),
    ]


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_reasoning_has_a_channel_of_its_own(server: HostileServer, field: str) -> None:
    told = chunks(server, delta(**{field: "hm"}), delta(content="A"), delta("stop"), usage(1, 2), DONE)
    assert [(c.channel, c.text) for c in told[:-1]] == [("reasoning", "hm"), ("answer", "A")]


def test_reasoning_sent_under_both_names_is_one_text(server: HostileServer) -> None:
    told = chunks(server, delta(reasoning="hm", reasoning_content="hm"), delta("stop"), usage(1, 1), DONE)
    assert [c.text for c in told[:-1]] == ["hm"]


def test_a_chunk_with_the_end_of_thinking_and_the_answer_is_not_split_by_guess(server: HostileServer) -> None:
    told = chunks(server, delta("stop", reasoning="hm", content="A", token_ids=[1, 2, 3]), usage(1, 3), DONE)
    assert told[:-1] == [
        Chunk(text="hm", tokens=3, counted=False, channel="reasoning"),
        Chunk(text="A", tokens=0),
    ]


def test_thinking_tokens_told_by_the_server_are_kept(server: HostileServer) -> None:
    told = chunks(
        server, delta("stop", content="A"), usage(1, 9, completion_tokens_details={"reasoning_tokens": 8}), DONE
    )
    assert told[-1].usage == Usage(prompt_tokens=1, output_tokens=9, think_tokens=8, source="usage")


def test_think_tags_in_the_answer_stay_text(server: HostileServer) -> None:
    told = chunks(server, delta("stop", content="<think>hm</think>A"), DONE)
    assert [(c.channel, c.text) for c in told[:-1]] == [("answer", "<think>hm</think>A")]


def test_characters_cut_between_packets_are_whole(server: HostileServer) -> None:
    data = delta("stop", content="水肿 Ödem") + usage(1, 4) + DONE
    told = chunks(server, *(data[i : i + 5] for i in range(0, len(data), 5)))
    assert "".join(c.text for c in told) == "水肿 Ödem"


def test_timings_of_llama_server_are_read(server: HostileServer) -> None:
    timings = {"prompt_n": 10, "prompt_ms": 50.5, "predicted_n": 3, "predicted_ms": 99.0, "cache_n": 32}
    told = chunks(
        server, delta(content="a b c"), event({"choices": [{"finish_reason": "stop"}], "timings": timings}), DONE
    )
    assert told[-1].usage == Usage(
        prompt_tokens=42, cached_tokens=32, output_tokens=3, source="engine", prefill_ms=50.5, decode_ms=99.0
    )


def test_an_answer_without_done_is_whole_when_it_has_a_finish_reason(server: HostileServer) -> None:
    told = chunks(server, delta("stop", content="A"), usage(1, 1), chunked=False)
    assert told[-1].usage == Usage(prompt_tokens=1, output_tokens=1, source="usage")


@pytest.mark.parametrize(
    ("pieces", "sentence"),
    [
        ((delta(content="a"), DROP), "URL: the connection broke before the answer was whole"),
        ((delta(content="a"), b'data: {"choi'), "URL: the stream ended within an event"),
        ((delta(content="a"), DONE), "the stream ended without a finish reason, after 1 pieces of text"),
        ((b"data: {oh\n\n",), "the server sent an event that is not valid JSON"),
        ((b'data: {"choices": 3}\n\n',), "the server sent an event that is not of the API's form"),
        (
            (event({"choices": [], "usage": {"prompt_tokens": -1}}),),
            "the server sent an event that is not of the API's form",
        ),
        ((b"data: \xff\n\n",), "URL: an event is not valid UTF-8"),
        ((b"data: " + b"x" * (1 << 20),), "URL: a line is longer than 1048576 bytes"),
        (
            (delta(content="a"), event({"choices": [{"index": 1, "delta": {"content": "b"}}]})),
            "the server sends more than one answer to a request",
        ),
        (
            (delta(None, content="a"), delta(None), usage(2, 1), DONE),
            "the stream ended without a finish reason, after 1 pieces of text",
        ),
        (
            (delta("content_filter", content="a"), DONE),
            "the server ended the answer with finish reason 'content_filter'",
        ),
        (
            (delta(content="a"), event({"error": {"message": "cache full"}})),
            "the server broke the answer off: cache full",
        ),
        (
            (delta(content="a"), event({"error": {"message": "you said well? well? well?"}})),
            "the server broke the answer off",
        ),
    ],
)
def test_a_broken_answer_is_an_error_in_one_sentence(
    server: HostileServer, pieces: tuple[Piece, ...], sentence: str
) -> None:
    server.answers[CHAT] = Reply(*pieces)
    with backend(server) as engine, pytest.raises(BackendError) as caught:
        list(engine.stream(request(text="well? well? well?")))
    assert str(caught.value).replace(server.url.removesuffix("/v1"), "URL") == sentence


@pytest.mark.parametrize("silence", [(STALL,), (b": ping\n\n", STALL), (delta(content="a"), STALL)])
def test_a_stall_is_an_error(server: HostileServer, silence: tuple[Piece, ...]) -> None:
    assert error(server, *silence, stall_timeout_s=0.2) == "URL: the server was silent for 0.2 s"


def test_a_second_stall_after_the_first_means_that_the_server_has_hung(server: HostileServer) -> None:
    server.answers[CHAT] = Reply(STALL)
    with backend(server, stall_timeout_s=0.1) as engine:
        with pytest.raises(BackendError):
            list(engine.stream(request()))
        with pytest.raises(BackendTimeout, match="twice in a row"):
            list(engine.stream(request()))


def test_an_answer_between_two_stalls_shows_that_the_server_lives(server: HostileServer) -> None:
    def say(reply: Reply) -> str:
        server.answers[CHAT] = reply
        return "".join(chunk.text for chunk in engine.stream(request()))

    with backend(server, stall_timeout_s=0.2) as engine:
        with pytest.raises(BackendError, match="was silent for"):
            say(Reply(STALL))
        assert say(Reply(delta("stop", content="a"), DONE)) == "a"
        with pytest.raises(BackendError, match="was silent for"):
            say(Reply(STALL))


@pytest.mark.parametrize(
    ("status", "said", "sentence"),
    [
        (429, {"error": {"message": "slow down"}}, "URL: HTTP 429, too many requests: slow down"),
        (500, {"detail": "broken"}, "URL: HTTP 500, the request failed: broken"),
        (503, "no json {", "URL: HTTP 503, the request failed"),
        (404, {"error": {"message": "nothing here"}}, "URL: HTTP 404, no such model or address: nothing here"),
        (400, {"error": "field well? well? is wrong"}, "URL: HTTP 400, the request failed"),
        (
            401,
            {"error": {"message": f"bad key {KEY}"}},
            "URL: HTTP 401, the server refuses the key; name it in `api_key_env`",
        ),
        (500, {"error": {"message": f"bad key {KEY}"}}, "URL: HTTP 500, the request failed"),
    ],
)
def test_a_refusal_quotes_the_server_but_never_the_prompt_or_the_key(
    server: HostileServer, status: int, said: object, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THE_KEY", KEY)
    server.answers[CHAT] = as_json(said, status=status)
    with backend(server, api_key_env="THE_KEY") as engine:
        assert KEY not in repr(vars(engine)) + repr(engine)
        with pytest.raises(BackendError) as caught:
            list(engine.stream(request(text="field well? well? is wrong")))
    assert str(caught.value).replace(server.url.removesuffix("/v1"), "URL") == sentence
    assert server.seen[0][1]["Authorization"] == f"Bearer {KEY}"


def test_an_answer_that_is_no_stream_is_an_error(server: HostileServer) -> None:
    server.answers[CHAT] = as_json({"choices": []})
    with backend(server) as engine, pytest.raises(BackendError, match="answered with 'application/json'"):
        list(engine.stream(request()))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(server: HostileServer, status: int) -> None:
    with hostile_server() as elsewhere:
        server.answers[CHAT] = Reply(status=status, Location=elsewhere.url + "/chat/completions")
        with backend(server) as engine, pytest.raises(BackendError, match=f"HTTP {status}"):
            list(engine.stream(request()))
        assert elsewhere.seen == []


def test_the_next_answer_comes_over_the_same_connection(server: HostileServer) -> None:
    server.answers[CHAT] = Reply(delta("stop", content="A"), usage(1, 1), DONE)
    with backend(server) as engine:
        for _ in range(3):
            list(engine.stream(request()))
    assert len(set(server.ports)) == 1


def test_a_server_that_says_done_and_does_not_end_is_left(server: HostileServer) -> None:
    told = chunks(server, delta("stop", content="A"), usage(1, 1), DONE, STALL, stall_timeout_s=60.0)
    assert told[-1].usage == Usage(prompt_tokens=1, output_tokens=1, source="usage")


def test_an_answer_that_is_packed_or_has_other_line_ends_is_the_same(server: HostileServer) -> None:
    events = delta(content="心") + b": a comment\n\n" + delta("stop", content="脏") + usage(3, 2) + DONE
    plain = chunks(server, events)
    server.answers[CHAT] = Reply(gzip.compress(events), Content_Encoding="gzip")
    with backend(server) as engine:
        assert list(engine.stream(request())) == plain
    assert chunks(server, *(bytes([byte]) for byte in events.replace(b"\n", b"\r\n"))) == plain


def test_an_answer_that_cannot_be_unpacked_is_an_error(server: HostileServer) -> None:
    server.answers[CHAT] = Reply(b"no gzip at all", Content_Encoding="gzip")
    with backend(server) as engine, pytest.raises(BackendError, match=r"the reply cannot be read \(DecodingError\)"):
        list(engine.stream(request()))


def test_a_prompt_that_comes_back_is_no_answer(server: HostileServer) -> None:
    text = "How many chambers has the heart?"
    server.answers["/v1/completions"] = Reply(
        event({"choices": [{"text": text[:9]}]}), event({"choices": [{"text": text[9:]}]})
    )
    with backend(server, api="completions") as engine, pytest.raises(BackendError, match="repeats the prompt"):
        list(engine.stream(request(text=text)))


def test_times_of_mindie_are_read(server: HostileServer) -> None:
    """As in the streams of its documentation: milliseconds, beside the usage of the last event."""
    last = {
        "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "stop"}],
        "prefill_time": 200,
        "decode_time_arr": [56, 28],
    }
    told = chunks(
        server, delta(content="a b"), event({**last, "usage": {"prompt_tokens": 4, "completion_tokens": 3}}), DONE
    )
    assert told[-1].usage == Usage(prompt_tokens=4, output_tokens=3, source="usage", prefill_ms=200.0, decode_ms=84.0)


@pytest.mark.parametrize(("told", "known"), [(5, 5), (0, None)])
def test_thinking_tokens_of_sglang_are_read_and_none_is_unknown(
    server: HostileServer, told: int, known: int | None
) -> None:
    said = chunks(
        server, delta(reasoning_content="well"), delta("stop", content="A"), usage(4, 6, reasoning_tokens=told), DONE
    )
    assert said[-1].usage is not None
    assert said[-1].usage.think_tokens == known


def test_failed_requests_are_records_and_the_others_go_on(server: HostileServer) -> None:
    turns = iter(
        [Reply(delta("stop", content="A"), usage(4, 1), DONE), as_json({}, status=429), Reply(delta(content="x"), DROP)]
    )
    server.answers[CHAT] = lambda _: next(turns)
    step = JobStep(name="s", load=Load(concurrency=1), seed=1, requests=tuple(request(f"q{i}") for i in range(3)))
    with backend(server) as engine:
        done = [r for r in drive(engine, step, TokenCount()) if isinstance(r, Answered)]
    assert [(a.finish, a.text, a.output_tokens) for a in done] == [
        ("stop", "A", 1),
        ("error", "", None),
        ("error", "x", None),
    ]


def test_the_chat_body_says_all_that_was_asked(server: HostileServer) -> None:
    server.answers[CHAT] = Reply(delta("stop", content="A"), DONE)
    asked = request(
        prefill="<think>\n", sampling={"temperature": 0.6, "top_p": 0.95, "seed": 3, "stop": ("X",), "think_budget": 50}
    )
    with backend(server, extra_body={"top_k": 0}) as engine:
        list(engine.stream(asked))
    assert server.seen[0][2] == {
        "model": "m",
        "messages": [{"role": "user", "content": "well?"}, {"role": "assistant", "content": "<think>\n"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 9,
        "temperature": 0.6,
        "top_p": 0.95,
        "seed": 3,
        "stop": ["X"],
        "thinking_token_budget": 50,
        "continue_final_message": True,
        "add_generation_prompt": False,
        "top_k": 0,
    }


def test_completions_join_the_turns_without_a_template(server: HostileServer) -> None:
    server.answers["/v1/completions"] = Reply(event({"choices": [{"text": "A", "finish_reason": "stop"}]}), DONE)
    asked = Request(
        id="q", turns=(Turn("system", "s"), Turn("user", "u")), prefill="P", sampling=Sampling(max_tokens=1)
    )
    with backend(server, api="completions") as engine:
        assert [c.text for c in engine.stream(asked)] == ["A", ""]
        assert engine.describe().notes == ("completions: no chat template is applied",)
    assert server.seen[0][2]["prompt"] == "s\n\nuP"


def test_a_speed_request_is_token_ids_and_its_lengths_are_checked(server: HostileServer) -> None:
    finish = event({"choices": [{"text": "x", "finish_reason": "length"}]})
    asked = request(exact_prompt_tokens=20, max_tokens=5)
    with backend(server) as engine:
        server.answers["/v1/completions"] = Reply(finish, usage(20, 5), DONE)
        assert list(engine.stream(asked))[-1].usage == Usage(prompt_tokens=20, output_tokens=5, source="usage")
        server.answers["/v1/completions"] = Reply(finish, usage(21, 4), DONE)
        with pytest.raises(BackendError, match="counted 21 tokens in and 4 out instead of 20 and 5"):
            list(engine.stream(asked))
        server.answers["/v1/completions"] = Reply(finish, DONE)
        with pytest.raises(BackendError, match="tells no usage"):
            list(engine.stream(asked))
    body = server.seen[0][2]
    assert len(body["prompt"]) == 20
    assert (body["ignore_eos"], body["min_tokens"], body["max_tokens"]) == (True, 5, 5)


@pytest.mark.parametrize(
    "address",
    [
        "http://example.org/v1",
        "http://10.0.0.7:8000/v1",
        "http://127.0.0.1.example.org/v1",
        "http://0.0.0.0/v1",
        "http://2130706433/v1",
    ],
)
def test_an_address_outside_this_host_is_refused_unless_permitted(address: str) -> None:
    with pytest.raises(BackendError, match="prompts would leave it"):
        OpenAIServerBackend(OpenAIServerSettings(base_url=address))


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://127.0.0.1@example.org/v1", "holds a name or password"),
        (f"http://u:{KEY}@127.0.0.1/v1", "holds a name or password"),
        ("file:///etc/passwd", "must look like"),
        ("127.0.0.1:8000", "must look like"),
        ("http://127.0.0.1:x/v1", "not an address"),
    ],
)
def test_an_address_that_cannot_be_used_is_one_sentence(address: str, words: str) -> None:
    with pytest.raises(BackendError, match=words) as caught:
        OpenAIServerBackend(OpenAIServerSettings(base_url=address))
    assert KEY not in str(caught.value)


def test_a_server_that_is_not_there_is_named(server: HostileServer) -> None:
    url = server.url
    server.close()
    with pytest.raises(BackendError) as caught:
        OpenAIServerBackend(OpenAIServerSettings(base_url=url))
    assert str(caught.value) == f"{url}: no server answers there (connection refused); start it or correct `base_url`"


@pytest.mark.parametrize("key", [None, "", "two words", "line\n", "ключ"])
def test_a_key_that_cannot_be_used_names_the_variable_only(
    server: HostileServer, key: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if key is not None:
        monkeypatch.setenv("THE_KEY", key)
    with pytest.raises(BackendError, match="THE_KEY") as caught, backend(server, api_key_env="THE_KEY"):
        pass
    assert not key or key not in str(caught.value)


@pytest.mark.parametrize(
    ("listed", "words"),
    [([], "lists 0 models"), ([{"id": "a"}, {"id": "b"}], "lists 2 models"), ("none", "not of the API's form")],
)
def test_the_model_must_be_told_apart(server: HostileServer, listed: object, words: str) -> None:
    server.answers["/v1/models"] = as_json({"data": listed})
    with pytest.raises(BackendError, match=words), backend(server):
        pass


def test_the_server_describes_itself(server: HostileServer) -> None:
    meta = {"n_params": 1000, "size": 2000}
    server.answers["/v1/models"] = as_json(
        {"data": [{"id": "m", "owned_by": "llamacpp", "max_model_len": 64, "meta": meta}]}
    )
    server.answers["/version"] = as_json({"version": "1.2"})
    with backend(server) as engine:
        info = engine.describe()
    assert (info.engine, info.engine_version, info.device, info.model) == ("openai_server", "1.2", "server", "m")
    assert (info.context, info.parameters, info.bits_per_weight, info.weights_sha256) == (64, 1000, 16.0, None)


@pytest.mark.parametrize(
    "metrics",
    [
        'vllm:kv_cache_usage_perc{engine="0"} 0.5\nvllm:num_preemptions_total{engine="0"} 2.0\n'
        'vllm:cache_config_info{block_size="128",kv_cache_size_tokens="1600",num_gpu_blocks="13"} 1.0\n',
        'vllm:gpu_cache_usage_perc{model_name="m"} 0.5\nvllm:num_preemptions_total{model_name="m"} 2.0\n'
        'vllm:cache_config_info{block_size="16",num_gpu_blocks="100"} 1.0\n',
    ],
)
def test_cache_use_and_preemptions_are_read_by_new_and_old_names(server: HostileServer, metrics: str) -> None:
    server.answers["/metrics"] = Reply(metrics.encode(), kind="text/plain")
    with backend(server) as engine:
        state = engine.state()
    assert state is not None
    assert state == EngineState(time_ns=state.time_ns, cache_tokens_used=800, cache_tokens_total=1600, preemptions=2)


def test_a_server_without_metrics_tells_no_state(server: HostileServer) -> None:
    with backend(server) as engine:
        assert engine.state() is None


def test_many_requests_share_the_server(server: HostileServer) -> None:
    server.answers[CHAT] = lambda body: Reply(
        delta("stop", content=body["messages"][0]["content"]), usage(1, len(body["messages"][0]["content"])), DONE
    )
    step = JobStep(
        name="s",
        load=Load(concurrency=8),
        seed=1,
        requests=tuple(request(f"q{i}", text="x" * (i + 1)) for i in range(40)),
    )
    with backend(server, slots=8) as engine:
        done = [r for r in drive(engine, step, TokenCount()) if isinstance(r, Answered)]
    assert sorted((a.text or "", a.output_tokens) for a in done) == [("x" * (i + 1), i + 1) for i in range(40)]
    assert threading.active_count() < 60


def test_ranking_is_refused_where_it_was_not_asked_for(server: HostileServer) -> None:
    with backend(server) as engine, pytest.raises(BackendError, match="not asked to rank"):
        engine.rank(RankRequest(id="q", context="c", continuations=(" a",)))
