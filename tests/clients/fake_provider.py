"""A model provider for tests: speaks OpenAI's Chat Completions and Anthropic's Messages over real HTTP.

It asks for the tool `calculate` once, then answers with what the tool said; with `stream`, in pieces. Each request's
idempotency key is appended to COUNT_FILE, outside of everything that a test kills. The model `slow` waits for the file COUNT_FILE.listen,
says half of its answer, then waits for COUNT_FILE.go; `cut` ends there. usage: fake_provider.py PORT COUNT_FILE
"""
import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LOCK = threading.Lock()


def await_file(path):
    for _ in range(2000):
        if os.path.exists(path):
            break
        time.sleep(0.01)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def reply(self, status, body, headers=()):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for key, value in headers:
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(data)

    def events(self, model, events):
        """Server-sent events, cut into TCP segments at no particular place."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        for number, (name, data) in enumerate(events):
            if number == len(events) // 2 and model == "cut":
                return
            if model == "slow" and number in (0, len(events) // 2):
                await_file(sys.argv[2] + (".go" if number else ".listen"))
            text = (": keep-alive\n" if number % 3 == 0 else "") + ("event: " + name + "\r\n" if name else "")
            text += "data: " + (data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)) + "\n\n"
            text = text.encode()
            for part in (text[:7], text[7:]):
                self.wfile.write(part)
                self.wfile.flush()

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with LOCK, open(sys.argv[2], "a") as out:
            out.write(self.headers.get("Idempotency-Key", "none") + "\n")
        if body["model"] == "overloaded":
            return self.reply(529, {"error": {"message": "try later"}}, [("Retry-After", "7")])
        if self.path == "/v1/chat/completions":
            if self.headers.get("Authorization") != "Bearer test-key":
                return self.reply(401, {"error": {"message": "Incorrect API key provided"}})
            return self.openai(body)
        if self.path == "/v1/messages":
            if self.headers.get("x-api-key") != "test-key" or "anthropic-version" not in self.headers:
                return self.reply(401, {"error": {"type": "authentication_error", "message": "invalid x-api-key"}})
            return self.anthropic(body)
        return self.reply(404, {"error": {"message": "no such path " + self.path}})

    def openai(self, body):
        last = body["messages"][-1]
        if "tools" in body and last["role"] != "tool":
            assert body["tools"][0]["function"]["parameters"]["type"] == "object"
            message = {"role": "assistant", "content": None, "tool_calls": [
                {"id": "c1", "type": "function",
                 "function": {"name": "calculate", "arguments": "{\"expression\": \"0.1 + 0.2\"}"}}]}
        else:
            message = {"role": "assistant", "content": "the answer: " + str(last["content"])}
        answer = {"id": "x", "object": "chat.completion", "model": body["model"] + "-2026"}
        usage = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
        if not body.get("stream"):
            return self.reply(200, {**answer, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage})
        assert body["stream_options"] == {"include_usage": True}
        deltas = [{"role": "assistant", "content": ""}]
        for call in message.get("tool_calls", []):
            arguments = call["function"]["arguments"]
            deltas.append({"tool_calls": [{"index": 0, "id": call["id"], "type": "function",
                                           "function": {"name": call["function"]["name"], "arguments": ""}}]})
            deltas += [{"tool_calls": [{"index": 0, "function": {"arguments": c}}]} for c in arguments]
        deltas += [{"content": c} for c in message["content"] or ""]
        chunks = [(None, {**answer, "choices": [{"index": 0, "delta": d, "finish_reason": None}], "usage": None}) for d in deltas]
        if body["model"] == "odd":  # as some servers do it
            for delta in deltas:
                for call in delta.get("tool_calls", []):
                    call.pop("index")
                    call.setdefault("id", "")
            for _, chunk in chunks:
                chunk["error"] = None
            chunks.insert(1, (None, {**answer, "choices": [{"index": 0, "delta": None}]}))
        chunks.append((None, {**answer, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": None}))
        chunks.append((None, {**answer, "choices": [], "usage": usage}))
        self.events(body["model"], chunks + [(None, "[DONE]")])

    def anthropic(self, body):
        last = body["messages"][-1]["content"][-1]
        if "tools" in body and last["type"] != "tool_result":
            assert body["tools"][0]["input_schema"]["type"] == "object"
            content = [{"type": "tool_use", "id": "t1", "name": "calculate", "input": {"expression": "0.1 + 0.2"}}]
        else:
            content = [{"type": "text", "text": "the answer: " + str(last.get("content", last.get("text")))}]
        answer = {"id": "x", "type": "message", "role": "assistant", "model": body["model"] + "-2026"}
        if not body.get("stream"):
            return self.reply(200, {**answer, "content": content, "stop_reason": "end_turn",
                                    "usage": {"input_tokens": 1000, "output_tokens": 100}})
        events = [{"type": "message_start", "message": {**answer, "content": [], "usage": {"input_tokens": 1000, "output_tokens": 1}}}]
        for index, block in enumerate(content):
            begin = {**block, "text": ""} if block["type"] == "text" else {**block, "input": {}}
            events.append({"type": "content_block_start", "index": index, "content_block": begin})
            events.append({"type": "ping"})
            if block["type"] == "text":
                pieces = [{"type": "text_delta", "text": c} for c in block["text"]]
            else:
                pieces = [{"type": "input_json_delta", "partial_json": c} for c in json.dumps(block["input"])]
            events += [{"type": "content_block_delta", "index": index, "delta": piece} for piece in pieces]
            events.append({"type": "content_block_stop", "index": index})
        events.append({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 100}})
        events.append({"type": "message_stop"})
        self.events(body["model"], [(event["type"], event) for event in events])


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
