"""Measures the server under load, its start, its memory, and the engine alone. See README.md in this folder."""
