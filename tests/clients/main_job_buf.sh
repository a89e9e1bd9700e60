#!/bin/bash
# The main job with `buf curl`, which learns the contracts by reflection. usage: main_job_buf.sh BUF HOST:PORT DOCUMENTS
set -euo pipefail
call() { "$1" curl --protocol grpc --http2-prior-knowledge "http://$2/tutti.workflow.v1.RunService/$3" -d "$4"; }
run_id=$(call "$1" "$2" StartRun "{\"workflow\":\"research-brief\",\"input\":{\"topic\":\"how packages declare dependencies\",\"documents\":\"$3\"}}" |
  python3 -c 'import json,sys; print(json.load(sys.stdin)["run"]["runId"])')
events=$(call "$1" "$2" WatchRun "{\"runId\":\"$run_id\"}")
grep -q RUN_STATE_SUCCEEDED <<<"$events"
call "$1" "$2" GetRun "{\"runId\":\"$run_id\"}" | python3 -c 'import json,sys; print(json.dumps(json.load(sys.stdin)["run"]["output"]))'
