-- Indexes that the ledgers of earlier releases lack, which are otherwise the same.
CREATE INDEX IF NOT EXISTS upload_by_use ON upload (endpoint, key_hash, last_used_at_us, name);
CREATE INDEX IF NOT EXISTS upload_by_content ON upload (sha256);

-- What only one run needs: temporary tables, gone with its connection.

-- Keys of SOURCE that this run has met, and where first.
CREATE TEMP TABLE seen (key TEXT PRIMARY KEY, position INTEGER NOT NULL) STRICT, WITHOUT ROWID;

-- The candidates of one `admit`, in their order.
CREATE TEMP TABLE candidate (ordinal INTEGER PRIMARY KEY, key TEXT NOT NULL, position INTEGER NOT NULL) STRICT;

-- Items that go through the graph once more, as JSON, in the order in which they were kept.
CREATE TEMP TABLE requeued (ordinal INTEGER PRIMARY KEY, item TEXT NOT NULL) STRICT;
