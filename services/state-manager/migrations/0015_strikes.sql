-- 0015: runs that kill their engines.
-- note: An engine sets a run aside that its predecessors died of, one after the other, without progress.
ALTER TABLE runs ADD COLUMN strikes BIGINT NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN claimed_seq BIGINT NOT NULL DEFAULT 0;
-- column runs.strikes: How often in a row its engine died while it worked on it, each time without progress.
-- column runs.claimed_seq: The last entry of its journal when it was last claimed.
