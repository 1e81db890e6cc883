"""Reads the binlog of one MySQL or MariaDB server: the wire protocol, the events and the column
types.
"""
