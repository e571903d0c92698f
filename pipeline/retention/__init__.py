"""ROOM 6: what lies in the project's File API storage, who needs it, and what may be freed."""
