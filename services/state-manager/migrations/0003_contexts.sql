-- 0003: documents that agents share while they work on one task.

-- table contexts: one row a shared document: its newest version.
CREATE TABLE contexts (
  context_id TEXT PRIMARY KEY,  -- The context's id.
  tenant TEXT NOT NULL,  -- Whose it is.
  version BIGINT NOT NULL,  -- The newest version, from 1; the etag.
  create_time BIGINT NOT NULL,  -- When it was made.
  update_time BIGINT NOT NULL,  -- When it last changed.
  labels JSONB NOT NULL,  -- The caller's labels.
  field_tags JSONB NOT NULL,  -- Tags by top-level field: an object of arrays.
  views JSONB NOT NULL  -- Views by agent: an object of {fields, tags, max_bytes}.
);

-- table context_versions: every version a context had. Append-only.
CREATE TABLE context_versions (
  context_id TEXT NOT NULL,  -- The context.
  version BIGINT NOT NULL,  -- From 1, without gaps.
  author TEXT NOT NULL,  -- Who made it.
  time BIGINT NOT NULL,  -- When.
  message TEXT NOT NULL,  -- Why, in the author's words.
  strategy TEXT NOT NULL,  -- How it was merged: `overwrite`, `deep_merge`, `append` or `three_way`.
  size BIGINT NOT NULL,  -- Bytes of the document.
  document BYTEA NOT NULL,  -- Cell: the JSON document.
  PRIMARY KEY (context_id, version)
);
CREATE INDEX contexts_by_tenant ON contexts (tenant, context_id);
