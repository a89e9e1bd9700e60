-- 0009: runs that wait outside memory, are held, have priorities and relatives; a cache of steps' answers.

--@sqlite
ALTER TABLE runs ADD COLUMN waiting INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN wake_time INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN paused INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN inbox INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN parent_run_id TEXT NOT NULL DEFAULT '';
ALTER TABLE runs ADD COLUMN forked_from TEXT NOT NULL DEFAULT '';
--@postgres
ALTER TABLE runs ADD COLUMN waiting BIGINT NOT NULL DEFAULT 0, ADD COLUMN wake_time BIGINT NOT NULL DEFAULT 0,
  ADD COLUMN paused BIGINT NOT NULL DEFAULT 0, ADD COLUMN inbox BIGINT NOT NULL DEFAULT 0,
  ADD COLUMN priority BIGINT NOT NULL DEFAULT 0, ADD COLUMN parent_run_id TEXT NOT NULL DEFAULT '',
  ADD COLUMN forked_from TEXT NOT NULL DEFAULT '';
--@both
-- column runs.waiting: 1: its owner has given it back until something arrives or its time has come.
-- column runs.wake_time: When a waiting run goes on by itself; 0 is never.
-- column runs.paused: 1: it is held by a caller.
-- column runs.inbox: The last entry of its journal that another than its owner wrote; 0 is none.
-- column runs.priority: Who is claimed first, -100 to 100.
-- column runs.parent_run_id: The run that waits for its end; empty is none.
-- column runs.forked_from: The run it was forked from; empty is none.
DROP INDEX runs_open;
CREATE INDEX runs_open ON runs (tenant, priority DESC, run_id) WHERE status IN ('PENDING', 'RUNNING') AND waiting = 0;
CREATE INDEX runs_to_wake ON runs (wake_time) WHERE waiting = 1 AND wake_time > 0;
CREATE INDEX runs_held ON runs (run_id) WHERE status IN ('PENDING', 'RUNNING') AND (waiting = 1 OR paused = 1);
CREATE INDEX runs_with_inbox ON runs (owner) WHERE status IN ('PENDING', 'RUNNING') AND inbox > 0;
CREATE INDEX journal_signals ON journal (run_id, target) WHERE kind = 'signal_received';

-- table step_cache: answers of steps that may be given again.
CREATE TABLE step_cache (
  tenant TEXT NOT NULL,  -- Whose answer it is.
  key TEXT NOT NULL,  -- The workflow, the step, its definition and what it was given, by digests.
  value BYTEA NOT NULL,  -- Cell: JSON.
  expire_time BIGINT NOT NULL,  -- Until when it is good.
  PRIMARY KEY (tenant, key)
);
CREATE INDEX step_cache_to_expire ON step_cache (expire_time);
