"""Gemini media pipeline."""
