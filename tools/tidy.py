#!/usr/bin/env python3
"""House rules that a compiler does not know. Run by ctest and `./dev lint`; prints each breach as file:line: text."""
import re
import subprocess
import sys

breaches = []


def breach(path, line, text):
    breaches.append(f"{path}:{line}: {text}")


files = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.h", "*.cc"], capture_output=True,
                       text=True, check=True).stdout.split()
# With no git (a source archive) there is nothing to look at, and that must not pass for a clean house.
if not files:
    sys.exit("tidy: no sources found")

# A layer and what it may not include: style 2.1, rpc -> domain <- adapters, domain -> ports, nobody -> another service.
GRPC = re.compile(r'#include [<"](grpcpp/|.*\.grpc\.pb\.h)')
DATABASE = re.compile(r'#include [<"](sqlite3\.h|pqxx/)')
SERVICE = re.compile(r'#include "services/([a-z-]+)/([a-z]+)?')
# name -> (pattern, where it is allowed, why)
BANNED = [
    (re.compile(r"\bstd::(j)?thread\b"), ("runtime/", "services/state-manager/adapters/group_commit", "services/state-manager/adapters/postgres_",
                                         "adapters/http_server", "tests/", "_test.cc", "cli/watch.cc", "bench/"),
     "threads are made in runtime/ and in the adapters that need one"),
    (re.compile(r"sleep_for|\busleep\("), ("tests/support/", "cli/watch.cc", "bench/"), "wait on a condition, or on TimerService"),
    (re.compile(r"system_clock::now|random_device|absl::Now\("), ("runtime/", "tests/", "adapters/", "module.cc", "cli/", "bench/",
                                                                "standalone", "_test.cc"),
     "time and randomness are passed in"),
    (re.compile(r"\}\s*while\s*\(.*co_await|(&&|\|\|)\s*!?\(?co_await|^\s*!?co_await.*(&&|\|\|)\s*$"), (),
     "GCC 12 awaits what is not to be awaited; a named local first (docs/adr/0002)"),
    (re.compile(r"\.detach\(\)"), (), "a detached thread has no owner"),
    (re.compile(r"absl::Mutex\b"), ("runtime/sync/",), "runtime/sync/mutex.h (docs/adr/0003)"),
    (re.compile(r"\bTODO\b|\bFIXME\b"), (), "no promise in place of the thing"),
    (re.compile(r"const std::string_view|std::string_view "), ("adapters/http_server",), "absl::string_view (docs/adr/0003)"),
]

for path in files:
    text = open(path, encoding="utf-8").read()
    lines = text.split("\n")
    parts = path.split("/")
    service = parts[1] if parts[0] == "services" else None
    layer = parts[2] if service and len(parts) > 3 else None
    test = path.endswith("_test.cc") or parts[0] == "tests"
    for number, line in enumerate(lines, 1):
        if len(line) > (240 if test else 160):
            breach(path, number, f"{len(line)} characters; at most 160, in tests 240")
        include = SERVICE.match(line)
        if include and service != "standalone" and service and include.group(1) != service:
            breach(path, number, f"{service} includes {include.group(1)}: services know each other by their contracts only")
        if include and parts[0] == "runtime":
            breach(path, number, "runtime includes a service")
        if layer == "store" and DATABASE.match(line):
            breach(path, number, "store includes a database: its SQL goes through ports/database.h")
        if layer in ("domain", "ports") and not test:
            if GRPC.match(line):
                breach(path, number, f"{layer} includes gRPC")
            if DATABASE.match(line):
                breach(path, number, f"{layer} includes a database")
            if include and include.group(2) in ("rpc", "adapters", "loops"):
                breach(path, number, f"{layer} includes {include.group(2)}")
        if layer == "adapters" and include and include.group(2) == "rpc":
            breach(path, number, "adapters include rpc")
        for pattern, allowed, why in BANNED:
            if pattern.search(line) and not any(a in path for a in allowed):
                breach(path, number, f"{pattern.search(line).group(0).strip()}: {why}")
    if path.endswith(".h") and "#pragma once" not in text:
        breach(path, 1, "no #pragma once")
    if len(lines) > 600 and not test:
        breach(path, 1, f"{len(lines)} lines; a file that long wants to be two")

for path in {f.rsplit("/", 1)[0] for f in files}:
    if re.search(r"(^|/)(utils?|helpers?|common|misc)(/|$)", path):
        breach(path, 1, "a folder is named for its topic")

print("\n".join(breaches) if breaches else f"tidy: {len(files)} files, nothing to say")
sys.exit(1 if breaches else 0)
