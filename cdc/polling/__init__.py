"""Captures a hospital that has no binlog: its tables are read again and again, and differences are
published.
"""
