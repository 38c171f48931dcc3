-- When everything of a mailbox was compared last; what was mirrored before this column was looked at, at least.
ALTER TABLE mailbox ADD COLUMN audited_at INTEGER;
UPDATE mailbox SET audited_at = looked_at;
