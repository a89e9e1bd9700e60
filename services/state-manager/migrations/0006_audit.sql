-- 0006: who did what. Append-only and hash-chained.

-- table audit_log: one row an act.
CREATE TABLE audit_log (
  seq BIGINT PRIMARY KEY,  -- From 1, without gaps.
  time BIGINT NOT NULL,  -- When, by the database's clock.
  tenant TEXT NOT NULL,  -- Whose resource it was.
  actor TEXT NOT NULL,  -- Who: `users/ann`, `agents/writer`, `services/gateway`.
  action TEXT NOT NULL,  -- What: `runs.cancel`.
  resource TEXT NOT NULL,  -- On what: `runs/01J…`.
  origin TEXT NOT NULL,  -- From where: an address.
  outcome TEXT NOT NULL,  -- `ok`, or the google.rpc.Code's name.
  details TEXT NOT NULL,  -- More, a JSON object.
  hash BYTEA NOT NULL  -- SHA-256 over the record before's hash and this record (store/audit.h).
);
CREATE INDEX audit_by_resource ON audit_log (resource, seq);
CREATE INDEX audit_by_time ON audit_log (time);

-- table audit_head: the end of the chain; one row.
CREATE TABLE audit_head (
  id BIGINT PRIMARY KEY,  -- 1.
  seq BIGINT NOT NULL,  -- The last record.
  hash BYTEA NOT NULL  -- Its hash.
);
INSERT INTO audit_head (id, seq, hash) VALUES (1, 0, '\x');
