"""What every stage shares: the two types that cross borders, the source, settings, errors and the
command line.
"""

__version__ = "0.1.0"
