-- 0010: schedules.

-- table schedules: runs that start by the calendar.
CREATE TABLE schedules (
  name TEXT NOT NULL PRIMARY KEY,  -- Its name.
  workflow TEXT NOT NULL,  -- The stored workflow that is run.
  paused BIGINT NOT NULL,  -- 1: its times pass.
  next_time BIGINT NOT NULL,  -- When an engine looks at it again; 0 is never.
  claim_time BIGINT NOT NULL,  -- Until when one engine does; 0 is none.
  version BIGINT NOT NULL,  -- Counts its changes.
  create_time BIGINT NOT NULL,  -- When it was first stored.
  definition BYTEA NOT NULL  -- Cell: what it is and what it has done (tutti.workflow.v1.Schedule).
);
CREATE INDEX schedules_to_run ON schedules (next_time) WHERE next_time > 0;
