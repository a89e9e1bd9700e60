-- 0005: conversations, and the sessions of users.

-- table conversations: one row a conversation.
CREATE TABLE conversations (
  conversation_id TEXT PRIMARY KEY,  -- The conversation's id.
  tenant TEXT NOT NULL,  -- Whose it is.
  agent TEXT NOT NULL,  -- With which agent; empty: with several.
  title TEXT NOT NULL,  -- For people.
  labels JSONB NOT NULL,  -- The caller's labels.
  last_seq BIGINT NOT NULL,  -- Its last message.
  tokens BIGINT NOT NULL,  -- Tokens of all messages.
  create_time BIGINT NOT NULL,  -- When it began.
  update_time BIGINT NOT NULL  -- When its last message came.
);

-- table messages: what was said, in order. Summaries stand beside the messages they stand for.
CREATE TABLE messages (
  conversation_id TEXT NOT NULL,  -- The conversation.
  seq BIGINT NOT NULL,  -- From 1, without gaps.
  message_id TEXT NOT NULL,  -- The caller's or a made id; the same id is appended once.
  role TEXT NOT NULL,  -- `system`, `user`, `assistant`, `tool` or `summary`.
  author TEXT NOT NULL,  -- Who said it.
  content BYTEA NOT NULL,  -- Cell: the serialized tutti.state.v1.Message.
  tokens BIGINT NOT NULL,  -- Its length in tokens.
  tool_calls BIGINT NOT NULL,  -- How many calls of tools it asks for.
  first_summarized BIGINT NOT NULL,  -- Of a summary: the first message it stands for; else 0.
  last_summarized BIGINT NOT NULL,  -- Of a summary: the last message it stands for; else 0.
  time BIGINT NOT NULL,  -- When it was appended.
  PRIMARY KEY (conversation_id, seq)
);
CREATE UNIQUE INDEX messages_by_id ON messages (conversation_id, message_id);
CREATE INDEX messages_summaries ON messages (conversation_id, last_summarized) WHERE last_summarized > 0;
CREATE INDEX conversations_by_tenant ON conversations (tenant, update_time);

-- table sessions: users who are logged in. Tokens are kept as hashes only.
CREATE TABLE sessions (
  session_id TEXT PRIMARY KEY,  -- The session's id.
  tenant TEXT NOT NULL,  -- Whose user it is.
  user_id TEXT NOT NULL,  -- The user.
  token_hash BYTEA NOT NULL,  -- SHA-256 of the token.
  attributes JSONB NOT NULL,  -- An object of strings.
  create_time BIGINT NOT NULL,  -- When it began.
  expire_time BIGINT NOT NULL,  -- When it ends.
  seen_time BIGINT NOT NULL,  -- When its token was last shown, to the minute.
  revoke_time BIGINT NOT NULL  -- When it was ended early; 0 is not.
);
CREATE UNIQUE INDEX sessions_by_token ON sessions (token_hash);
CREATE INDEX sessions_by_user ON sessions (tenant, user_id);
CREATE INDEX sessions_to_expire ON sessions (expire_time);
