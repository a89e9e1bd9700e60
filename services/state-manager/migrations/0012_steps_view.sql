-- 0012: the view of steps tells ends from waits.
-- A step that is at work again has no end yet, one that ended well has no error, and a fork's mark is no step.
DROP VIEW steps;

-- view steps: one row a step of a run, from the journal.
CREATE VIEW steps AS SELECT run_id, step_path, kind, target, attempts, status, as_time(first_time) AS start_time,
  CASE WHEN status <> 'RUNNING' THEN as_time(last_end) END AS end_time,
  CASE WHEN status = 'FAILED' THEN last_error ELSE 0 END AS error_code
  FROM (SELECT run_id, path AS step_path, max(step_kind) AS kind, max(target) AS target, max(attempt) AS attempts,
    CASE WHEN max(CASE WHEN kind = 'step_completed' THEN 1 ELSE 0 END) = 1 THEN 'COMPLETED'
         WHEN max(CASE WHEN kind = 'step_failed' THEN seq ELSE 0 END) > max(CASE WHEN kind IN ('step_started', 'step_waiting') THEN seq ELSE 0 END) THEN 'FAILED'
         ELSE 'RUNNING' END AS status,
    min(time) AS first_time, max(CASE WHEN kind IN ('step_completed', 'step_failed') THEN time END) AS last_end,
    max(error_code) AS last_error FROM journal
    WHERE path <> '' AND kind IN ('step_started', 'step_completed', 'step_failed', 'step_waiting') GROUP BY run_id, path) AS s;
