-- 0014: open runs are those without an end.
-- note: Indexes of open runs go by `end_time`, which changes once, and not by `status`: a run that goes from PENDING to
-- RUNNING touches no index, which on PostgreSQL lets its row's new version stay on its page.
DROP INDEX runs_open;
DROP INDEX runs_held;
DROP INDEX runs_with_inbox;
DROP INDEX runs_to_cancel;
CREATE INDEX runs_open ON runs (tenant, priority DESC, run_id) WHERE end_time = 0 AND waiting = 0;
CREATE INDEX runs_held ON runs (run_id) WHERE end_time = 0 AND (waiting = 1 OR paused = 1);
CREATE INDEX runs_with_inbox ON runs (owner) WHERE end_time = 0 AND inbox > 0;
CREATE INDEX runs_to_cancel ON runs (owner) WHERE end_time = 0 AND cancel_requested = 1;
