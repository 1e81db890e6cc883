"""The contract: what every stage, every destination and any other tool may import.

It holds the records in Kafka, the facts that destinations get, settings, errors, logs and metrics.
"""

__version__ = "0.1.0"
