-- 0001: the walking suite, which ran on SQLite only. 0002 replaces its tables and takes over what they hold.
--@sqlite
CREATE TABLE workflows (
  name TEXT NOT NULL, version INTEGER NOT NULL, description TEXT NOT NULL, spec BLOB NOT NULL, create_time INTEGER NOT NULL,
  PRIMARY KEY (name, version)
) WITHOUT ROWID;
CREATE TABLE runs (
  run_id TEXT PRIMARY KEY, workflow TEXT NOT NULL, workflow_version INTEGER NOT NULL, spec BLOB NOT NULL, input BLOB NOT NULL,
  output BLOB NOT NULL DEFAULT x'', started INTEGER NOT NULL DEFAULT 0, outcome INTEGER NOT NULL DEFAULT 0,
  error BLOB NOT NULL DEFAULT x'', create_time INTEGER NOT NULL, end_time INTEGER NOT NULL DEFAULT 0, labels TEXT NOT NULL,
  progress_percent INTEGER NOT NULL DEFAULT 0, traceparent TEXT NOT NULL, cancel_requested INTEGER NOT NULL DEFAULT 0,
  request_id TEXT, owner TEXT NOT NULL DEFAULT '', owner_incarnation TEXT NOT NULL DEFAULT '',
  lease_epoch INTEGER NOT NULL DEFAULT 0, last_seq INTEGER NOT NULL DEFAULT 0, last_writer_seq INTEGER NOT NULL DEFAULT 0,
  calls INTEGER NOT NULL DEFAULT 0, input_tokens INTEGER NOT NULL DEFAULT 0, output_tokens INTEGER NOT NULL DEFAULT 0,
  cost_nano_units INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE UNIQUE INDEX runs_by_request ON runs (request_id) WHERE request_id IS NOT NULL;
CREATE INDEX runs_open ON runs (run_id) WHERE outcome = 0;
CREATE INDEX runs_to_cancel ON runs (owner) WHERE outcome = 0 AND cancel_requested = 1;
CREATE INDEX runs_by_workflow ON runs (workflow, run_id);
CREATE TABLE journal (
  run_id TEXT NOT NULL, seq INTEGER NOT NULL, time INTEGER NOT NULL, kind TEXT NOT NULL, path TEXT NOT NULL, entry BLOB NOT NULL,
  PRIMARY KEY (run_id, seq)
) WITHOUT ROWID;
CREATE TABLE usage (
  run_id TEXT NOT NULL, seq INTEGER NOT NULL, position INTEGER NOT NULL, time INTEGER NOT NULL, step_path TEXT NOT NULL,
  agent TEXT NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL, calls INTEGER NOT NULL, input_tokens INTEGER NOT NULL,
  output_tokens INTEGER NOT NULL, cost_nano_units INTEGER NOT NULL, currency_code TEXT NOT NULL,
  PRIMARY KEY (run_id, seq, position)
) WITHOUT ROWID;
CREATE INDEX usage_by_time ON usage (time);
CREATE TABLE instances (
  name TEXT PRIMARY KEY, incarnation TEXT NOT NULL, lease_duration INTEGER NOT NULL, expire_time INTEGER NOT NULL
) WITHOUT ROWID;
--@postgres
SELECT 1;
