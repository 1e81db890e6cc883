"""Tests: unit (pure), integration (one real server), e2e (the whole way)."""
