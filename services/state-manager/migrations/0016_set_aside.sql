-- 0016: work that is set aside after too many attempts.
-- note: docs/adr/0023 has the law: attempts with a bound, then set aside, then tried again when somebody says so.
ALTER TABLE outbox ADD COLUMN attempts BIGINT NOT NULL DEFAULT 0;
ALTER TABLE outbox ADD COLUMN try_time BIGINT NOT NULL DEFAULT 0;
ALTER TABLE outbox ADD COLUMN set_aside_time BIGINT NOT NULL DEFAULT 0;
ALTER TABLE outbox ADD COLUMN refusal TEXT NOT NULL DEFAULT '';
-- column outbox.attempts: How often its database has refused it.
-- column outbox.try_time: It is not tried before.
-- column outbox.set_aside_time: When it was set aside; 0: it is still tried.
-- column outbox.refusal: The last refusal.
CREATE INDEX outbox_set_aside ON outbox (message_id) WHERE set_aside_time > 0;
ALTER TABLE schedules ADD COLUMN strikes BIGINT NOT NULL DEFAULT 0;
ALTER TABLE schedules ADD COLUMN claimer TEXT NOT NULL DEFAULT '';
-- column schedules.strikes: How often in a row the engine died that had claimed it.
-- column schedules.claimer: The incarnation of the engine that claimed it last.
