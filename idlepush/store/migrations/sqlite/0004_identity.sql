-- What tells a message whatever its mailbox and UID: the server's own name for it and its thread, and Gmail's labels.
ALTER TABLE message ADD COLUMN email_id TEXT;
ALTER TABLE message ADD COLUMN thread_id TEXT;
ALTER TABLE message ADD COLUMN labels TEXT; -- JSON, sorted; NULL: the server has none

CREATE INDEX message_email ON message (mailbox, email_id) WHERE email_id IS NOT NULL AND expunged IS NULL;
