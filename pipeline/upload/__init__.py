"""ROOM 2: items in, items whose bytes are where they need to be out."""
