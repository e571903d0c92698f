"""A look into ledger.sqlite3 from outside, while a run may be going on: read-only, and content with what it finds."""

import sqlite3
from contextlib import closing
from pathlib import Path

from pipeline.ledger import store


def open_intents(path: Path, *, run_is_on: bool) -> list[str]:
    """Keys of the calls whose fate is unknown; while a run is on its own calls are merely out.

    A ledger that is missing or can't be read knows of none.
    """
    query = "SELECT key FROM intent WHERE earlier OR NOT ? ORDER BY key"
    try:
        with closing(store.open_reader(path)) as connection:
            return [key for (key,) in connection.execute(query, (run_is_on,))]
    except sqlite3.Error:
        return []
