"""Knows an OpenMRS database: its tables, how they are read, and who its patients are."""
