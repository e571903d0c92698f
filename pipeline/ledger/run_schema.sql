-- What only one run needs: temporary tables, gone with its connection.

-- Keys of SOURCE that this run has met, and where first.
CREATE TEMP TABLE seen (key TEXT PRIMARY KEY, position INTEGER NOT NULL) STRICT, WITHOUT ROWID;

-- The candidates of one `admit`, in their order.
CREATE TEMP TABLE candidate (ordinal INTEGER PRIMARY KEY, key TEXT NOT NULL, position INTEGER NOT NULL) STRICT;

-- Items that go through the graph once more, as JSON, in the order in which they were kept.
CREATE TEMP TABLE requeued (ordinal INTEGER PRIMARY KEY, item TEXT NOT NULL) STRICT;
