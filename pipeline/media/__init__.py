"""What a file is, and how it is made ready."""
