-- The mirror, its checkpoints and the event log. Moments are microseconds since 1970 in UTC.

CREATE TABLE account (
    name    TEXT PRIMARY KEY,
    state   TEXT NOT NULL,
    since   INTEGER NOT NULL,
    class   TEXT,
    reason  TEXT,
    details TEXT NOT NULL -- JSON object
) STRICT, WITHOUT ROWID;

-- The troubles that people were told of and not of their end, so that a restart tells nobody twice.
CREATE TABLE alert (
    account TEXT PRIMARY KEY,
    since   INTEGER NOT NULL,
    told    INTEGER NOT NULL,
    class   TEXT,
    reason  TEXT
) STRICT, WITHOUT ROWID;

CREATE TABLE mailbox (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    account    TEXT NOT NULL,
    raw        BLOB NOT NULL, -- its identity: the name as the server spells it
    name       TEXT NOT NULL, -- the same in Unicode, for the order
    state      TEXT NOT NULL,
    generation INTEGER REFERENCES generation (id), -- the current one; NULL: never seen, or gone
    looked_at  INTEGER,
    UNIQUE (account, raw)
) STRICT;

-- One meaning of a mailbox's UIDs, and how far the mirror of it has come.
CREATE TABLE generation (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    mailbox     INTEGER NOT NULL REFERENCES mailbox (id),
    uidvalidity INTEGER NOT NULL,
    high        INTEGER NOT NULL,
    holes       TEXT NOT NULL, -- JSON [[first, last, found_by], …], newest first
    modseq      INTEGER,
    alive       INTEGER NOT NULL DEFAULT 0 -- live rows, counted here so that a look costs the same in any mailbox
) STRICT;

CREATE INDEX generation_by_mailbox ON generation (mailbox);
CREATE INDEX mailbox_by_generation ON mailbox (generation);

CREATE TABLE quarantine (
    generation INTEGER NOT NULL REFERENCES generation (id),
    uid        INTEGER NOT NULL,
    reason     TEXT NOT NULL,
    tries      INTEGER NOT NULL,
    next_try   INTEGER NOT NULL,
    PRIMARY KEY (generation, uid)
) STRICT, WITHOUT ROWID;

CREATE TABLE body (
    id     INTEGER PRIMARY KEY AUTOINCREMENT, -- never used again: a reader may still be walking its chunks
    sha256 BLOB UNIQUE,                       -- NULL until it is whole
    octets INTEGER NOT NULL,                  -- as many as are kept
    chunks INTEGER NOT NULL                   -- in so many chunks
) STRICT;

-- One B-tree in the order of writing: a key of two columns would be an index beside it, and a page more each commit.
CREATE TABLE body_chunk (
    id     INTEGER PRIMARY KEY, -- body * 2^20 + its place among the body's chunks, from 0
    packed INTEGER NOT NULL,    -- 1: data is a zstd frame; 0: the octets themselves
    data   BLOB NOT NULL
) STRICT;

CREATE TABLE message (
    id            INTEGER PRIMARY KEY AUTOINCREMENT, -- outside it is a message's name for ever
    mailbox       INTEGER NOT NULL, -- no foreign keys here: each would need an index of its own, on every insert,
    generation    INTEGER NOT NULL, -- to guard what is deleted by retention alone, once no row is left
    uid           INTEGER NOT NULL,
    fingerprint   BLOB NOT NULL,
    message_id    TEXT,
    subject       TEXT,
    sender        TEXT NOT NULL, -- JSON [[name, address], …]
    recipients    TEXT NOT NULL, -- JSON, likewise
    date          INTEGER,
    internal_date INTEGER,
    size          INTEGER NOT NULL,
    flags         TEXT NOT NULL, -- JSON, sorted
    modseq        INTEGER,
    found_by      TEXT NOT NULL,
    truncated     INTEGER NOT NULL,
    complete      INTEGER NOT NULL,
    body          INTEGER REFERENCES body (id), -- NULL: only headers are mirrored, nothing has come yet, or it was swept
    sha256        BLOB,                         -- outlives the body
    expunged      INTEGER                       -- NULL: live
) STRICT;

-- An expunged row never stands in the way of a UID that is used again. Also the order of `messages`.
CREATE UNIQUE INDEX message_live ON message (mailbox, uid, generation) WHERE expunged IS NULL;
CREATE INDEX message_expunged ON message (mailbox, uid, generation) WHERE expunged IS NOT NULL;

CREATE INDEX message_newest
    ON message (mailbox, coalesce(internal_date, -4611686018427387904), id) WHERE expunged IS NULL;

-- What a reset looks its messages up by.
CREATE INDEX message_fingerprint ON message (mailbox, fingerprint) WHERE expunged IS NULL;

CREATE INDEX message_part ON message (generation, uid) WHERE complete = 0 AND expunged IS NULL;
CREATE INDEX message_body ON message (body) WHERE body IS NOT NULL;

-- What retention goes by.
CREATE INDEX message_gone ON message (expunged) WHERE expunged IS NOT NULL;

CREATE TABLE event (
    position    INTEGER PRIMARY KEY AUTOINCREMENT, -- the last one given out outlives a cut of the log
    time        INTEGER NOT NULL,
    account     TEXT NOT NULL,
    type        TEXT NOT NULL,
    message     INTEGER, -- no foreign key: the log tells of rows that retention has taken
    mailbox     TEXT,
    uidvalidity INTEGER,
    uid         INTEGER,
    details     TEXT NOT NULL -- JSON object
) STRICT;
