"""ROOM 3: uploaded items in, items whose files are all ACTIVE out."""
