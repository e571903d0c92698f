"""The results room: every outcome becomes one durable line."""
