"""A server of embeddings with OpenAI's API that knows what some words mean. Usage: embedding_server.py PORT"""
import http.server
import json
import sys

MEANINGS = {"car": 0, "automobile": 0, "vehicle": 0, "tea": 1, "beverage": 1, "drink": 1}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers.get("Authorization") != "Bearer sesame":
            return self.answer(401, {"error": {"message": "bad key"}})
        vector = [0.01] * 8
        for word in request["input"].lower().split():
            if word in MEANINGS:
                vector[MEANINGS[word]] += 1
        self.answer(200, {"model": request["model"], "data": [{"index": 0, "embedding": vector}]})

    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
