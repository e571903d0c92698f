"""How the rooms are joined, and how a run begins, ends early, and ends."""
