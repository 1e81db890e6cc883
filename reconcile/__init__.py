"""Compares the two ends, re-sends what differs, and polls hospitals that have no binlog."""
