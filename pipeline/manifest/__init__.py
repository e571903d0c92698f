"""ROOM 1: rows and folders in, Items out."""
