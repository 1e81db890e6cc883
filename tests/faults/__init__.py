"""Faults of real processes and connections, each with the proof that it happened."""

from tests.faults import full, kinds

KINDS = {**kinds.KINDS, **full.KINDS}
