-- 0013: room for updates.
-- note: A run's row changes with each append. On PostgreSQL pages of `runs` keep room for it (`fillfactor` 70): the new
-- version stays on its page and no index is touched, also at the first changes of a new run.
--@postgres
ALTER TABLE runs SET (fillfactor = 70);
