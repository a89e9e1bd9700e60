-- 0011: a log before the tables.
-- From here on a SQLite store keeps its last writes in files beside the database (docs/adr/0015): programs of earlier
-- versions, which would not look there, must not open it. Nothing changes in the tables.
SELECT 1;
