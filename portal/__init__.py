"""MongoDB to patients and operators, read-only: the web pages and their API."""
