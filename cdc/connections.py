"""The connections of a reader to the world, in one place. A simulation can put its own there."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cdc.binlog.stream import BinlogStream
from cdc.positions import Positions
from cdc.publisher import Publisher
from cdc.signals import Signals, SignalWatch
from openmrs import connection as mysql
from passport.settings import Kafka


@dataclass(frozen=True, slots=True)
class Connections:
    """The functions that open a reader's connections.

    `connect` opens a session of MySQL, to ask and to read. `stream` opens its binlog. `publisher`
    and `positions` open the two topics of Kafka, and `signals` watches the latter for signals.
    """

    connect: Callable[..., Any] = mysql.connect
    stream: Callable[..., BinlogStream] = BinlogStream
    publisher: Callable[[Kafka, str, int, int], Publisher] = Publisher
    positions: Callable[[Kafka], Positions] = Positions
    signals: Callable[[Kafka, str, Signals, int], SignalWatch] = SignalWatch


REAL = Connections()
