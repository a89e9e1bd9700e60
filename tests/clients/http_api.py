"""An HTTP API with moods, for http steps. Usage: http_api.py PORT LOG

/echo answers what it was sent; it wants the secret. /flaky is unavailable twice. /teapot is one. /slow takes its time, and so
does /busy, which answers how many were with it at once.
LOG gets a line a request: method, path, idempotency key.
"""
import http.server
import json
import sys
import threading
import time

lock = threading.Lock()
seen = {}
busy = 0


class Handler(http.server.BaseHTTPRequestHandler):
    def serve(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        with lock:
            seen[self.path] = seen.get(self.path, 0) + 1
            times = seen[self.path]
            with open(sys.argv[2], "a") as log:
                log.write(f"{self.command} {self.path} {self.headers.get('Idempotency-Key')}\n")
        if self.path.startswith("/echo"):
            if self.headers.get("X-Api-Key") != "sesame":
                return self.answer(401, {"error": "who are you?"})
            got = json.loads(body) if body else None
            return self.answer(200, {"method": self.command, "path": self.path, "got": got, "from": self.headers.get("X-From")})
        if self.path.startswith("/flaky"):
            return self.answer(503, {"error": "later"}) if times < 3 else self.answer(200, {"times": times})
        if self.path.startswith("/busy"):
            return self.answer(200, {"at_once": self.hold()})
        if self.path.startswith("/slow"):
            time.sleep(1)
        self.answer(418 if self.path.startswith("/teapot") else 200, {"error": "short and stout"})

    def hold(self):
        global busy
        with lock:
            busy += 1
        time.sleep(0.2)
        with lock:
            most = busy
            busy -= 1
        return most

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = serve

    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        try:
            self.wfile.write(data)
        except BrokenPipeError:
            pass

    def log_message(self, *args):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
