-- 0007: budgets, what is reserved of them, and what was spent.

-- table budgets: limits on a scope; a scope's budgets and those of all scopes above it hold at once.
CREATE TABLE budgets (
  scope TEXT PRIMARY KEY,  -- `tenants/acme/projects/web/runs/01J…/agents/writer/steps/draft`, or the front of it.
  currency_code TEXT NOT NULL,  -- ISO 4217, of the money.
  limit_nano_units BIGINT NOT NULL,  -- Most money in a window; -1 is no limit.
  limit_tokens BIGINT NOT NULL,  -- Most tokens; -1 is no limit.
  limit_calls BIGINT NOT NULL,  -- Most calls; -1 is no limit.
  window_micros BIGINT NOT NULL,  -- Length of a window; 0 is one window for ever.
  window_start BIGINT NOT NULL,  -- When the current window began.
  spent_nano_units BIGINT NOT NULL,  -- Money spent in the window.
  spent_tokens BIGINT NOT NULL,  -- Tokens spent in the window.
  spent_calls BIGINT NOT NULL,  -- Calls made in the window.
  reserved_nano_units BIGINT NOT NULL,  -- Money reserved and not settled.
  reserved_tokens BIGINT NOT NULL,  -- Tokens reserved and not settled.
  reserved_calls BIGINT NOT NULL,  -- Calls reserved and not settled.
  create_time BIGINT NOT NULL,  -- When it was set.
  update_time BIGINT NOT NULL  -- When its limits last changed.
);

-- table reservations: what callers may spend. Rows stay, as the ledger's entries.
CREATE TABLE reservations (
  reservation_id TEXT PRIMARY KEY,  -- The caller's key: the same key reserves once.
  scope TEXT NOT NULL,  -- Where it is spent.
  budgets JSONB NOT NULL,  -- The budgets it is held against, an array of scopes.
  run_id TEXT NOT NULL,  -- The run it serves.
  state TEXT NOT NULL,  -- `HELD`, `SETTLED`, `RELEASED` or `EXPIRED`.
  currency_code TEXT NOT NULL,  -- ISO 4217.
  held_nano_units BIGINT NOT NULL,  -- Worst case, money.
  held_tokens BIGINT NOT NULL,  -- Worst case, tokens.
  held_calls BIGINT NOT NULL,  -- Worst case, calls.
  spent_nano_units BIGINT NOT NULL,  -- Actual money.
  spent_tokens BIGINT NOT NULL,  -- Actual tokens.
  spent_calls BIGINT NOT NULL,  -- Actual calls.
  labels JSONB NOT NULL,  -- An object of strings, for reports.
  create_time BIGINT NOT NULL,  -- When it was made.
  expire_time BIGINT NOT NULL,  -- When it is given back by itself.
  end_time BIGINT NOT NULL  -- When it was settled, released or had expired; 0 is not.
);
CREATE INDEX reservations_held ON reservations (expire_time) WHERE state = 'HELD';
CREATE INDEX reservations_by_scope ON reservations (scope, end_time);
CREATE INDEX reservations_by_run ON reservations (run_id);
CREATE INDEX reservations_by_end ON reservations (end_time);
