"""The only folder that remembers: a cache of results.jsonl plus what can't be derived from it."""
