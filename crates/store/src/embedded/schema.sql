-- The catalog: every record by kind and key. A deleted one stays for a while without a value, so that
-- changes since a revision can be told.
CREATE TABLE records (
    kind     TEXT    NOT NULL,
    key      TEXT    NOT NULL,
    revision INTEGER NOT NULL,
    value    BLOB,
    PRIMARY KEY (kind, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX records_by_revision ON records (revision);

-- `revision`: the last commit's. `forgotten`: deletions up to this revision may have been dropped.
CREATE TABLE counters (
    name  TEXT    PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO counters (name, value) VALUES ('revision', 0), ('forgotten', 0);

-- The next number of each sequence.
CREATE TABLE sequences (
    name TEXT    PRIMARY KEY,
    next INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- When each host was last seen, in milliseconds since the Unix epoch.
CREATE TABLE seen (
    host INTEGER PRIMARY KEY,
    at   INTEGER NOT NULL
) STRICT;

-- Campaigns. `question` is JSON, `targets`, `answered` and `failed` are roaring bitmaps; the last two and
-- `last` (the place of the last answer) are written when a campaign ends, and stand in its file until then.
CREATE TABLE campaigns (
    id         INTEGER PRIMARY KEY,
    created_at INTEGER NOT NULL,
    status     TEXT    NOT NULL,
    ended_at   INTEGER,
    ending     TEXT,
    epoch      INTEGER NOT NULL DEFAULT 0,
    forgotten  INTEGER NOT NULL DEFAULT 0,
    last       INTEGER NOT NULL DEFAULT 0,
    question   TEXT    NOT NULL,
    targets    BLOB    NOT NULL,
    answered   BLOB,
    failed     BLOB
) STRICT;
