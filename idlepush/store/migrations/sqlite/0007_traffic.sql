-- What each account has received on the last day that it received anything, for its byte budget.
CREATE TABLE traffic (
    account TEXT PRIMARY KEY,
    day     TEXT NOT NULL, -- in UTC, as 2026-11-22
    octets  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
