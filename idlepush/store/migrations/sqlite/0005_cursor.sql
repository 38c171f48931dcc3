-- How far each sink has the log; account is '' for a sink of all accounts.
CREATE TABLE cursor (
    sink     TEXT NOT NULL,
    account  TEXT NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (sink, account)
) STRICT, WITHOUT ROWID;
