-- 0015: runs that kill their engines.
-- note: `strikes` counts how often in a row an engine died while it worked on the run, without progress; `claimed_seq` is
-- the run's last entry when it was last claimed. An engine sets a run with too many aside.
ALTER TABLE runs ADD COLUMN strikes bigint NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN claimed_seq bigint NOT NULL DEFAULT 0;
