"""What one would build without this project.

It is Debezium and MongoDB's sink in one Kafka Connect, which carry rows as they are.
"""

from benchmarks.pipeline.peer.connect import Peer

__all__ = ["Peer"]
