"""Capture without a binlog: the tables are read again and again, and differences are published."""
