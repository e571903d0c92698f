-- What ledger.sqlite3 holds. A change here needs another SCHEMA_VERSION in store.py.

-- The current line of each key in results.jsonl. Rows lie in the order of the file.
-- `detail` is what only Python looks at, as one value: a million rows go in twice as fast as with a column each.
CREATE TABLE line (
    key        TEXT NOT NULL,
    offset     INTEGER PRIMARY KEY,
    size_bytes INTEGER NOT NULL,
    emulated   INTEGER NOT NULL,
    wrong_row  INTEGER NOT NULL,
    detail     BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX line_by_key ON line (key);

-- How much of which results.jsonl `line` speaks of: at most one row.
CREATE TABLE taken_in (
    inode      INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    mtime_ns   INTEGER NOT NULL
) STRICT;

-- Paid calls that were about to be sent and of which nothing more is known.
CREATE TABLE intent (
    key           TEXT PRIMARY KEY,
    attempt       INTEGER NOT NULL,
    started_at_us INTEGER NOT NULL,
    earlier       INTEGER NOT NULL DEFAULT 0  -- 1: left open by an earlier run
) STRICT, WITHOUT ROWID;

-- Files in the File API storage of an endpoint and key. `file` is a RemoteFile as JSON.
CREATE TABLE upload (
    endpoint        TEXT NOT NULL,
    key_hash        TEXT NOT NULL,
    name            TEXT NOT NULL,
    sha256          TEXT NOT NULL,
    file            BLOB NOT NULL,
    last_used_at_us INTEGER NOT NULL,
    PRIMARY KEY (endpoint, key_hash, name)
) STRICT, WITHOUT ROWID;

-- Hashes of files on this machine. `location` is the path's bytes, which need not be Unicode.
CREATE TABLE identity (
    location   BLOB PRIMARY KEY,
    size_bytes INTEGER NOT NULL,
    mtime_ns   INTEGER NOT NULL,
    ctime_ns   INTEGER NOT NULL,
    inode      INTEGER NOT NULL,
    mime_type  TEXT NOT NULL,
    sha256     TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE learnt (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL,
    at_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
