-- 0008: runs spread over several databases; memories that are encrypted after they were stored.

-- table outbox: what a transaction wants done in another database, or in this one later, committed with it and delivered after it.
CREATE TABLE outbox (
  message_id TEXT PRIMARY KEY,  -- The message's id; ids grow with time.
  target BIGINT NOT NULL,  -- The database it is for, as a number from 0, the home database.
  kind TEXT NOT NULL,  -- `reserve`, `settle`, `audit`, `forget_request`, or `signal`: the end of a run, for the run that waits for it.
  body BYTEA NOT NULL  -- A serialized message of tutti.state.v1, by kind.
);
CREATE INDEX outbox_by_target ON outbox (target, message_id);

-- table inbox: messages from outboxes that were worked on here, so that none is worked on twice; without signals, which a run knows itself.
CREATE TABLE inbox (
  message_id TEXT PRIMARY KEY,  -- The message's id.
  time BIGINT NOT NULL  -- When it was worked on; rows go after a day.
);
CREATE INDEX inbox_by_time ON inbox (time);

-- table run_requests: which run a request id belongs to, where runs are spread: the row and the run may be in different databases.
CREATE TABLE run_requests (
  tenant TEXT NOT NULL,  -- Whose request it is.
  request_id TEXT NOT NULL,  -- The caller's key.
  run_id TEXT NOT NULL,  -- The run that is created for it.
  use_time BIGINT NOT NULL,  -- When a caller last asked for it.
  PRIMARY KEY (tenant, request_id)
);
--@sqlite
CREATE TRIGGER memories_text_update AFTER UPDATE OF search_text ON memories BEGIN
  INSERT INTO memories_text (memories_text, rowid, search_text) VALUES ('delete', old.number, old.search_text);
  INSERT INTO memories_text (rowid, search_text) VALUES (new.number, new.search_text);
END;
