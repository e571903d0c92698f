"""The only folder that speaks HTTP as a client."""
