"""A server that writes a token to each of its streams at a fixed pace and says how long its decoding took. Run as a process of its own.

`python paced_server.py TOKENS INTERVAL_MS` prints its port. What vLLM tells as `metrics.generation_time_ms` is here the time from the
first token's write to the last one's.
"""

import asyncio
import json
import sys

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(value: object) -> bytes:
    return chunk(f"data: {json.dumps(value)}\n\n".encode())


TOKEN = event({"choices": [{"index": 0, "delta": {"content": " word"}, "finish_reason": None, "token_ids": [7]}]})
FINISH = event({"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]})


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tokens: int, interval_s: float) -> None:
    while head := await reader.readuntil(b"\r\n\r\n"):
        method, path = head.split(b" ", 2)[:2]
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
        await reader.readexactly(int(fields.get(b"content-length", b"0")))
        if method == b"POST":
            await stream(writer, tokens, interval_s)
        elif path == b"/v1/models":
            body = json.dumps({"data": [{"id": "paced"}]}).encode()
            writer.write(HEAD % b"application/json" + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        else:
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()


async def stream(writer: asyncio.StreamWriter, tokens: int, interval_s: float) -> None:
    clock = asyncio.get_running_loop().time
    writer.write(HEAD % b"text/event-stream" + b"Transfer-Encoding: chunked\r\n\r\n")
    first = clock()
    for number in range(tokens):
        if (wait := first + number * interval_s - clock()) > 0:
            await asyncio.sleep(wait)
        writer.write(TOKEN)
        await writer.drain()
    taken_ms = 1000 * (clock() - first)
    usage = {"prompt_tokens": 8, "completion_tokens": tokens}
    writer.write(FINISH + event({"choices": [], "usage": usage, "metrics": {"generation_time_ms": taken_ms}}))
    writer.write(chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")


async def main(tokens: int, interval_s: float) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer, tokens, interval_s)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()  # the client has gone

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2]) / 1000))
