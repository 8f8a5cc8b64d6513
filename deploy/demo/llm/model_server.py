#!/usr/bin/env python3
"""A stand-in for a model's server: OpenAI chat completions and Anthropic messages, whole or streamed, with usage.

It answers as many tokens as `max_tokens` allows, or as the request header `x-demo-tokens` says, and ends as
`x-demo-ending` says: `whole` (the default), `no-usage`, `error` (500), `abort` (the connection breaks half-way).
`x-demo-ms` is how long a response takes. Python's standard library only.
"""

import argparse
import http.server
import json
import socket
import time

WORD = "token "
# Pieces of a stream.
PIECES = 5


def usage_of(request, body):
    """(input, output) tokens: a token is four bytes of the request, and each word of the answer."""
    asked = request.get("max_tokens") or request.get("max_completion_tokens") or 100
    return max(1, len(body) // 4), int(asked)


def openai_usage(tokens_in, tokens_out):
    return {"prompt_tokens": tokens_in, "completion_tokens": tokens_out, "total_tokens": tokens_in + tokens_out}


def openai_whole(model, text, usage):
    message = {"role": "assistant", "content": text}
    answer = {"id": "demo", "object": "chat.completion", "model": model,
              "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    return {**answer, "usage": openai_usage(*usage)} if usage else answer


def openai_events(model, pieces, usage):
    def chunk(delta, finish=None, **more):
        choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
        return None, {"id": "demo", "object": "chat.completion.chunk", "model": model, "choices": choices, **more}

    for piece in pieces:
        yield chunk({"content": piece})
    yield chunk({}, "stop")
    if usage:
        _, last = chunk({}, usage=openai_usage(*usage))
        yield None, {**last, "choices": []}
    yield None, "[DONE]"


def anthropic_whole(model, text, usage):
    answer = {"id": "demo", "type": "message", "role": "assistant", "model": model, "stop_reason": "end_turn",
              "content": [{"type": "text", "text": text}]}
    return {**answer, "usage": {"input_tokens": usage[0], "output_tokens": usage[1]}} if usage else answer


def anthropic_events(model, pieces, usage):
    start = {"id": "demo", "type": "message", "role": "assistant", "model": model, "content": []}
    if usage:
        start["usage"] = {"input_tokens": usage[0], "output_tokens": 1}
    yield "message_start", {"type": "message_start", "message": start}
    yield "content_block_start", {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    for piece in pieces:
        delta = {"type": "text_delta", "text": piece}
        yield "content_block_delta", {"type": "content_block_delta", "index": 0, "delta": delta}
    yield "content_block_stop", {"type": "content_block_stop", "index": 0}
    delta = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}
    if usage:
        delta["usage"] = {"output_tokens": usage[1]}
    yield "message_delta", delta
    yield "message_stop", {"type": "message_stop"}


# By path: the whole answer, and the events of a streamed one.
PROTOCOLS = {
    "/v1/chat/completions": (openai_whole, openai_events),
    "/v1/messages": (anthropic_whole, anthropic_events),
}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        protocol = PROTOCOLS.get(self.path)
        try:
            request = json.loads(body)
        except ValueError:
            request = None
        if protocol is None or not isinstance(request, dict):
            return self.whole(404 if protocol is None else 400, {"error": {"message": "not understood"}})
        ending = self.headers.get("x-demo-ending", "whole")
        seconds = int(self.headers.get("x-demo-ms") or 0) / 1000
        if ending == "error":
            time.sleep(seconds)
            return self.whole(500, {"error": {"message": "the model is overloaded"}})
        tokens_in, tokens_out = usage_of(request, body)
        tokens_out = int(self.headers.get("x-demo-tokens") or tokens_out)
        usage = None if ending == "no-usage" else (tokens_in, tokens_out)
        model = request.get("model", "demo")
        whole, events = protocol
        if request.get("stream"):
            pieces = [WORD * (tokens_out // PIECES)] * PIECES
            return self.stream(events(model, pieces, usage), seconds / PIECES, ending)
        time.sleep(seconds)
        if ending == "abort":
            return self.break_off()
        return self.whole(200, whole(model, WORD * tokens_out, usage))

    def whole(self, status, answer):
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def stream(self, events, pause, ending):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for number, (name, data) in enumerate(events):
            text = data if isinstance(data, str) else json.dumps(data)
            self.chunk(f"event: {name}\ndata: {text}\n\n" if name else f"data: {text}\n\n")
            if ending == "abort" and number == PIECES // 2:
                return self.break_off()
            time.sleep(pause if number < PIECES else 0)
        self.wfile.write(b"0\r\n\r\n")

    def chunk(self, text):
        data = text.encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def break_off(self):
        """The connection ends in the middle of the answer."""
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_):
        """Envoy's access log is enough."""


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, *_):
        """A caller that has left is no news."""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    Server(("127.0.0.1", options.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
