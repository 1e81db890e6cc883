"""From a hospital's binlog to the Passport: how fast, how late, at what cost. ``make
bench-pipeline``.
"""
