-- A mailbox's MAILBOXID (RFC 8474), by which it is known again under another name.
ALTER TABLE mailbox ADD COLUMN object_id TEXT;
