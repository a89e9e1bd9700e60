#!/bin/bash
# The main job with curl alone: start a run by REST, follow it by server-sent events, print its output as JSON.
# usage: main_job_curl.sh URL DOCUMENTS
set -euo pipefail
url=$1
run_id=$(curl -sSf -X POST "$url/v1/runs" -H 'Content-Type: application/json' \
  -d "{\"workflow\":\"research-brief\",\"input\":{\"topic\":\"how packages declare dependencies\",\"documents\":\"$2\"}}" |
  python3 -c 'import json,sys; print(json.load(sys.stdin)["run"]["runId"])')
events=$(curl -sSfN --max-time 60 -H 'Accept: text/event-stream' "$url/v1/runs/$run_id:watch")
grep -q '"state":"RUN_STATE_SUCCEEDED"' <<<"$events"
# A second watch resumes behind an event: the first thing it sends is the next one.
events=$(curl -sSfN --max-time 60 -H 'Accept: text/event-stream' -H 'Last-Event-ID: 3' "$url/v1/runs/$run_id:watch")
[ "${events%%$'\n'*}" = 'id: 4' ]
curl -sSf "$url/v1/runs/$run_id" | python3 -c 'import json,sys; print(json.dumps(json.load(sys.stdin)["run"]["output"]))'
