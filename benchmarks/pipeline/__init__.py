"""``make bench-pipeline``: from a hospital's binlog to the Passport.

It tells how fast, how late and at what cost.
"""
