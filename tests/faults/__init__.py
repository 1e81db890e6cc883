"""Faults of real processes and connections, each with the proof that it happened."""
