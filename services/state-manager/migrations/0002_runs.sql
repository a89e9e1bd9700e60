-- 0002: definitions, runs, journals, payloads, leases.
-- Times are microseconds since 1970-01-01 UTC, money is nano-units (10^-9) of a currency. A `cell` is user data as
-- store/payload_cell.h writes it: perhaps compressed, encrypted, or the hash of a row of payloads.
--@sqlite
ALTER TABLE workflows RENAME TO workflows_1;
ALTER TABLE runs RENAME TO runs_1;
ALTER TABLE journal RENAME TO journal_1;
ALTER TABLE usage RENAME TO usage_1;
DROP TABLE instances;
DROP INDEX runs_by_request;
DROP INDEX runs_open;
DROP INDEX runs_to_cancel;
DROP INDEX runs_by_workflow;
DROP INDEX usage_by_time;
--@postgres
-- Microseconds as a time, for the views below.
CREATE FUNCTION as_time(BIGINT) RETURNS TIMESTAMPTZ LANGUAGE sql IMMUTABLE AS 'SELECT to_timestamp($1 / 1000000.0)';
--@both

-- table meta: facts about the database itself.
CREATE TABLE meta (
  key TEXT PRIMARY KEY,  -- Name of the fact: `key_check/<key id>`.
  value BYTEA NOT NULL  -- Its value.
);

-- table workflows: definitions; a version never changes.
CREATE TABLE workflows (
  name TEXT NOT NULL,  -- The workflow's name.
  version BIGINT NOT NULL,  -- From 1.
  description TEXT NOT NULL,  -- For people.
  spec BYTEA NOT NULL,  -- Cell: a serialized tutti.workflow.v1.WorkflowSpec.
  create_time BIGINT NOT NULL,  -- When it was stored.
  PRIMARY KEY (name, version)
);

-- table runs: one row a run; what its journal says, summed up. Large columns stand last: the others are read and written most.
CREATE TABLE runs (
  run_id TEXT PRIMARY KEY,  -- The run's id; ids grow with time.
  tenant TEXT NOT NULL,  -- Whose run it is; empty is the default tenant.
  workflow TEXT NOT NULL,  -- The workflow's name.
  workflow_version BIGINT NOT NULL,  -- 0 for a spec of the run's own.
  pattern TEXT NOT NULL,  -- `pipeline`, `supervisor`, `parallel`, `reflect`, `graph` …
  status TEXT NOT NULL,  -- `PENDING`, `RUNNING`, `SUCCEEDED`, `FAILED` or `CANCELLED`.
  error_code BIGINT NOT NULL DEFAULT 0,  -- The error's google.rpc.Code; 0 is none.
  create_time BIGINT NOT NULL,  -- When it was accepted.
  start_time BIGINT NOT NULL DEFAULT 0,  -- When an owner first began it; 0 is not yet.
  end_time BIGINT NOT NULL DEFAULT 0,  -- When it ended; 0 is not yet.
  labels JSONB NOT NULL,  -- The caller's labels, an object of strings.
  progress_percent BIGINT NOT NULL DEFAULT 0,  -- 0 to 100.
  traceparent TEXT NOT NULL,  -- W3C trace context of the call that started it.
  cancel_requested BIGINT NOT NULL DEFAULT 0,  -- 1: somebody asked it to stop.
  request_id TEXT,  -- The caller's idempotency key.
  owner TEXT NOT NULL,  -- The engine instance that has the lease; empty is none.
  owner_incarnation TEXT NOT NULL,  -- The instance's incarnation.
  lease_epoch BIGINT NOT NULL,  -- Grows with each new owner; fences the old one.
  last_seq BIGINT NOT NULL DEFAULT 0,  -- Last entry of its journal.
  last_writer_seq BIGINT NOT NULL DEFAULT 0,  -- Last entry of its owner in this epoch.
  snapshot_seq BIGINT NOT NULL DEFAULT 0,  -- The entry up to which a snapshot stands for the journal.
  calls BIGINT NOT NULL DEFAULT 0,  -- Model and tool calls paid for.
  input_tokens BIGINT NOT NULL DEFAULT 0,  -- Tokens sent.
  output_tokens BIGINT NOT NULL DEFAULT 0,  -- Tokens received.
  cost_nano_units BIGINT NOT NULL DEFAULT 0,  -- What it cost.
  spec BYTEA NOT NULL,  -- Cell: the serialized WorkflowSpec it runs.
  input BYTEA NOT NULL,  -- Cell: JSON it was started with.
  output BYTEA,  -- Cell: JSON it produced.
  error BYTEA  -- Cell: serialized google.rpc.Status it failed with.
--@sqlite
) WITHOUT ROWID;
--@postgres
);
--@both

-- table journal: what happened, in order. Append-only.
CREATE TABLE journal (
  run_id TEXT NOT NULL,  -- The run.
  seq BIGINT NOT NULL,  -- From 1, without gaps.
  time BIGINT NOT NULL,  -- When it happened, by its writer's clock.
  kind TEXT NOT NULL,  -- `run_started`, `step_started`, `step_completed`, `step_failed`, `cancel_requested`, `run_finished`.
  path TEXT NOT NULL,  -- The step's path; empty when it concerns the run.
  step_kind TEXT NOT NULL,  -- `agent`, `tool`, `transform` …
  attempt BIGINT NOT NULL,  -- Counts from 1; 0 when it concerns the run.
  target TEXT NOT NULL,  -- The agent's or tool's name.
  error_code BIGINT NOT NULL,  -- google.rpc.Code of a failure.
  entry BYTEA NOT NULL,  -- Cell: the serialized tutti.state.v1.JournalEntry.
  PRIMARY KEY (run_id, seq)
);

-- table snapshots: the shortest journal that recovers a run, for long runs; at most one a run.
CREATE TABLE snapshots (
  run_id TEXT PRIMARY KEY,  -- The run.
  seq BIGINT NOT NULL,  -- It stands for entries 1 to this.
  entries BYTEA NOT NULL,  -- Cell: a serialized tutti.state.v1.ReadJournalResponse.
  create_time BIGINT NOT NULL  -- When it was made.
);

-- table usage: what was consumed, a row for each model or tool call recorded in a journal entry.
CREATE TABLE usage (
  run_id TEXT NOT NULL,  -- The run.
  seq BIGINT NOT NULL,  -- The journal entry.
  position BIGINT NOT NULL,  -- Among the entry's calls, from 0.
  time BIGINT NOT NULL,  -- The entry's time.
  step_path TEXT NOT NULL,  -- The step.
  agent TEXT NOT NULL,  -- Who called.
  provider TEXT NOT NULL,  -- The model's provider.
  model TEXT NOT NULL,  -- The model.
  calls BIGINT NOT NULL,  -- Calls.
  input_tokens BIGINT NOT NULL,  -- Tokens sent.
  output_tokens BIGINT NOT NULL,  -- Tokens received.
  cost_nano_units BIGINT NOT NULL,  -- Cost.
  currency_code TEXT NOT NULL,  -- ISO 4217.
  PRIMARY KEY (run_id, seq, position)
);

-- table instances: engines that are alive, by their heartbeats.
CREATE TABLE instances (
  name TEXT PRIMARY KEY,  -- Stable over restarts.
  incarnation TEXT NOT NULL,  -- New at every start.
  lease_duration BIGINT NOT NULL,  -- Microseconds its leases outlive a heartbeat.
  expire_time BIGINT NOT NULL  -- When its leases end, by the database's clock.
);

-- table payloads: user data above a small size, once by content.
CREATE TABLE payloads (
  hash BYTEA PRIMARY KEY,  -- SHA-256 of the content (keyed, when the store is encrypted).
  size BIGINT NOT NULL,  -- Bytes of the content.
  data BYTEA NOT NULL,  -- Cell: the content, never a reference.
  create_time BIGINT NOT NULL,  -- When it first came.
  last_use_time BIGINT NOT NULL  -- When a reference was last added, to the hour: what was just used is not collected.
);

-- table payload_refs: who refers to which payload; a payload without a row here is collected.
CREATE TABLE payload_refs (
  owner TEXT NOT NULL,  -- `runs/<run_id>`, `workflows/<name>`, `contexts/<context_id>` …
  hash BYTEA NOT NULL,  -- The payload.
  PRIMARY KEY (owner, hash)
);

--@sqlite
INSERT INTO workflows SELECT name, version, description, CAST(x'00' || spec AS BLOB), create_time FROM workflows_1;
INSERT INTO runs (run_id, tenant, workflow, workflow_version, pattern, status, spec, input, output, error, error_code, create_time,
  start_time, end_time, labels, progress_percent, traceparent, cancel_requested, request_id, owner, owner_incarnation, lease_epoch,
  last_seq, last_writer_seq, snapshot_seq, calls, input_tokens, output_tokens, cost_nano_units) SELECT run_id, '', workflow, workflow_version, '',
  CASE outcome WHEN 1 THEN 'SUCCEEDED' WHEN 2 THEN 'FAILED' WHEN 3 THEN 'CANCELLED' ELSE CASE started WHEN 1 THEN 'RUNNING' ELSE 'PENDING' END END,
  CAST(x'00' || spec AS BLOB), CAST(x'00' || input AS BLOB), CASE WHEN length(output) > 0 THEN CAST(x'00' || output AS BLOB) END,
  CASE WHEN length(error) > 0 THEN CAST(x'00' || error AS BLOB) END, 0, create_time, CASE started WHEN 1 THEN create_time ELSE 0 END, end_time, labels,
  progress_percent, traceparent, cancel_requested, request_id, owner, owner_incarnation, lease_epoch, last_seq, last_writer_seq, 0,
  calls, input_tokens, output_tokens, cost_nano_units FROM runs_1;
INSERT INTO journal SELECT run_id, seq, time, kind, path, '', 0, '', 0, CAST(x'00' || entry AS BLOB) FROM journal_1;
INSERT INTO usage SELECT * FROM usage_1;
DROP TABLE workflows_1;
DROP TABLE runs_1;
DROP TABLE journal_1;
DROP TABLE usage_1;
--@both
CREATE UNIQUE INDEX runs_by_request ON runs (tenant, request_id) WHERE request_id IS NOT NULL;
CREATE INDEX runs_open ON runs (run_id) WHERE status IN ('PENDING', 'RUNNING');
CREATE INDEX runs_to_cancel ON runs (owner) WHERE status IN ('PENDING', 'RUNNING') AND cancel_requested = 1;
CREATE INDEX runs_by_workflow ON runs (workflow, run_id);
CREATE INDEX runs_by_tenant ON runs (tenant, run_id);
CREATE INDEX runs_by_end ON runs (end_time) WHERE end_time > 0;
CREATE INDEX usage_by_time ON usage (time);
CREATE INDEX payload_refs_by_hash ON payload_refs (hash);
CREATE INDEX payloads_by_use ON payloads (last_use_time);

-- view runs_report: runs with times a person reads and money in units.
CREATE VIEW runs_report AS SELECT run_id, tenant, workflow, workflow_version, pattern, status, as_time(create_time) AS create_time,
  as_time(nullif(start_time, 0)) AS start_time, as_time(nullif(end_time, 0)) AS end_time,
  CASE WHEN end_time > 0 THEN (end_time - create_time) / 1000000.0 END AS seconds, progress_percent, error_code, calls, input_tokens,
  output_tokens, cost_nano_units / 1000000000.0 AS cost, labels, owner, traceparent FROM runs;

-- view steps: one row a step of a run, from the journal.
CREATE VIEW steps AS SELECT run_id, path AS step_path, max(step_kind) AS kind, max(target) AS target, max(attempt) AS attempts,
  CASE WHEN max(CASE WHEN kind = 'step_completed' THEN 1 ELSE 0 END) = 1 THEN 'COMPLETED'
       WHEN max(CASE WHEN kind = 'step_failed' THEN seq ELSE 0 END) > max(CASE WHEN kind = 'step_started' THEN seq ELSE 0 END) THEN 'FAILED'
       ELSE 'RUNNING' END AS status,
  as_time(min(time)) AS start_time, as_time(max(CASE WHEN kind <> 'step_started' THEN time END)) AS end_time,
  max(error_code) AS error_code FROM journal WHERE path <> '' GROUP BY run_id, path;

-- view agent_executions: one row an attempt of an agent's step, with what it consumed.
CREATE VIEW agent_executions AS SELECT j.run_id, j.path AS step_path, j.target AS agent, j.attempt,
  CASE j.kind WHEN 'step_completed' THEN 'COMPLETED' ELSE 'FAILED' END AS status, as_time(j.time) AS end_time, j.error_code,
  coalesce(sum(u.calls), 0) AS calls, coalesce(sum(u.input_tokens), 0) AS input_tokens, coalesce(sum(u.output_tokens), 0) AS output_tokens,
  coalesce(sum(u.cost_nano_units), 0) / 1000000000.0 AS cost
  FROM journal j LEFT JOIN usage u ON u.run_id = j.run_id AND u.seq = j.seq
  WHERE j.step_kind = 'agent' AND j.kind IN ('step_completed', 'step_failed')
  GROUP BY j.run_id, j.seq, j.path, j.target, j.attempt, j.kind, j.time, j.error_code;

-- view agents: the agents that have worked, with what they consumed.
CREATE VIEW agents AS SELECT agent, count(DISTINCT run_id) AS runs, sum(calls) AS calls, sum(input_tokens) AS input_tokens,
  sum(output_tokens) AS output_tokens, sum(cost_nano_units) / 1000000000.0 AS cost, as_time(max(time)) AS last_time
  FROM usage WHERE agent <> '' GROUP BY agent;
