"""What a reader meets of the world, in one place: the simulation of the tests puts its own there."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cdc.binlog.stream import BinlogStream
from cdc.positions import Positions
from cdc.publisher import Publisher
from openmrs import connection as source
from passport.settings import Kafka


@dataclass(frozen=True, slots=True)
class Connections:
    """`connect`: to MySQL, to ask and to read; `stream`: its binlog; `publisher`, `positions`: the
    two topics.
    """

    connect: Callable[..., Any] = source.connect
    stream: Callable[..., BinlogStream] = BinlogStream
    publisher: Callable[[Kafka, str, int, int], Publisher] = Publisher
    positions: Callable[[Kafka], Positions] = Positions


REAL = Connections()
