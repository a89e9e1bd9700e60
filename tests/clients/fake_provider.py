"""A model provider for tests: speaks OpenAI's Chat Completions and Anthropic's Messages over real HTTP.

It asks for the tool `calculate` once, then answers with what the tool said. Each request's idempotency key is appended to
COUNT_FILE, outside of everything that a test kills. usage: fake_provider.py PORT COUNT_FILE
"""
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LOCK = threading.Lock()


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
        self.reply(200, {"id": "x", "object": "chat.completion", "model": body["model"] + "-2026",
                         "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                         "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}})

    def anthropic(self, body):
        last = body["messages"][-1]["content"][-1]
        if "tools" in body and last["type"] != "tool_result":
            assert body["tools"][0]["input_schema"]["type"] == "object"
            content = [{"type": "tool_use", "id": "t1", "name": "calculate", "input": {"expression": "0.1 + 0.2"}}]
        else:
            content = [{"type": "text", "text": "the answer: " + str(last.get("content", last.get("text")))}]
        self.reply(200, {"id": "x", "type": "message", "role": "assistant", "model": body["model"] + "-2026", "content": content,
                         "stop_reason": "end_turn", "usage": {"input_tokens": 1000, "output_tokens": 100}})


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
