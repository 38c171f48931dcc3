-- What messages are searched by. All of it but `attachment` of a message mirrored by its header can be made anew from
-- the rows and bodies, in the background; nothing here is written in the commit of a message with a body.

CREATE TABLE attachment (
    owner      INTEGER NOT NULL, -- a body's id; a message's, negated, where no body is mirrored
    place      INTEGER NOT NULL, -- among the message's, from 0
    name       TEXT,             -- as the sender spelled it: data, never a path
    type       TEXT NOT NULL,
    size       INTEGER NOT NULL,
    content_id TEXT,
    inline     INTEGER NOT NULL,
    PRIMARY KEY (owner, place)
) STRICT, WITHOUT ROWID;

-- What is in the index: a body once an account, however many messages have it, or a message without one.
CREATE TABLE document (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    account TEXT NOT NULL,
    body    INTEGER, -- both NULL: to be taken out of the index
    message INTEGER,
    thread  TEXT NOT NULL -- JSON: the Message-IDs it names, oldest first
) STRICT;

CREATE UNIQUE INDEX document_body ON document (body, account) WHERE body IS NOT NULL;
CREATE UNIQUE INDEX document_message ON document (message) WHERE message IS NOT NULL;
CREATE INDEX document_orphan ON document (id) WHERE body IS NULL AND message IS NULL;

-- The words are cut and folded before they come here (sync/words.py): to the tokenizer everything beyond ASCII is part
-- of a word. Contentless, for the words are kept compressed beside it, where taking a document out finds them.
CREATE VIRTUAL TABLE words USING fts5 (
    subject, sender, recipients, names, text, marks,
    content = '', columnsize = 0, tokenize = 'ascii', prefix = '3'
);
CREATE TABLE document_words (
    id     INTEGER PRIMARY KEY, -- the document's
    packed BLOB NOT NULL        -- a zstd frame: the columns of `words`, U+001F between them
) STRICT;

-- How far indexing has come: message rows up to `mark` are in the index, or in a range still to be done.
CREATE TABLE indexing (
    version INTEGER PRIMARY KEY, -- of the words
    mark    INTEGER NOT NULL,
    ranges  TEXT NOT NULL -- JSON [[first, last], …], newest last
) STRICT;

-- Messages whose body came after they were indexed.
CREATE TABLE indexing_again (
    message INTEGER PRIMARY KEY
) STRICT;
