"""What one would build without this project: Debezium and MongoDB's sink in one Kafka Connect, rows
as they are.
"""

from benchmarks.pipeline.peer.connect import Peer

__all__ = ["Peer"]
