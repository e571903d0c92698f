"""ROOM 4: ready items in, outcomes out."""
