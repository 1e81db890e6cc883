"""Timings that must be believed, each with the command that measures them again."""
