"""GTIDs, and sets of them: what a server has executed, as it writes and packs them."""

import re
import struct
from collections.abc import Iterator
from uuid import UUID

from cdc.binlog.field_types import Flavour

Source = tuple[str, str]
"""The uuid of a server, and a tag or ""."""

_MARIADB = re.compile(r"\d+-\d+-\d+")
_MYSQL = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(:[a-z_]\w*)?:(\d+)")


def one_transaction(text: str, flavour: Flavour) -> str:
    """Return the GTID of one transaction in the form in which the decoder gives it.

    It is ``domain-server-seq`` of a MariaDB, ``uuid:7`` or ``uuid:tag:7`` of a MySQL. Raises
    ValueError if it is none, or a set of them.
    """
    text = text.strip().lower()
    if flavour == "mariadb" and _MARIADB.fullmatch(text):
        return "-".join(str(int(part)) for part in text.split("-"))
    match = _MYSQL.fullmatch(text)
    if flavour == "mysql" and match is not None:
        uuid, tag, number = match.groups()
        return f"{uuid}{tag or ''}:{int(number)}"
    raise ValueError("not the GTID of one transaction")


class MariadbGtidSet:
    """The last transaction of each domain: ``domain-server-seq[,...]``."""

    def __init__(self, text: str = "") -> None:
        self._last: dict[str, str] = {}
        for gtid in filter(None, text.replace(" ", "").split(",")):
            self.advance("-".join(str(int(part)) for part in gtid.split("-")))

    def advance(self, gtid: str) -> str:
        """Take `gtid`, which was read, as the last of its domain. Return the set with it."""
        self._last[gtid[: gtid.index("-")]] = gtid
        return gtid if len(self._last) == 1 else str(self)  # this runs once a transaction

    def __str__(self) -> str:
        return ",".join(self._last[domain] for domain in sorted(self._last, key=int))

    @classmethod
    def unpack(cls, data: bytes) -> "MariadbGtidSet":
        """Return the set in the body of a GTID_LIST event."""
        state = cls()
        for domain, server, seq in struct.iter_unpack(
            "<IIQ", data[4 : 4 + (len(data) - 4) // 16 * 16]
        ):
            state.advance(f"{domain}-{server}-{seq}")
        return state


def contains(state: str, gtid_set: str) -> bool:
    """Return whether a MariaDB has written all of `gtid_set`.

    `state` is its @@gtid_binlog_state: the last GTID of each domain and server.
    """
    last: dict[tuple[str, str], int] = {}
    for gtid in filter(None, state.replace(" ", "").split(",")):
        domain, server, seq = gtid.split("-")
        last[domain, server] = int(seq)
    for gtid in filter(None, gtid_set.replace(" ", "").split(",")):
        domain, server, seq = gtid.split("-")
        if last.get((domain, server), -1) < int(seq):
            return False
    return True


class MysqlGtidSet:
    """A set of transactions, in intervals: ``uuid[:tag]:first-last[:...][,...]``."""

    def __init__(self, text: str = "") -> None:
        self._intervals: dict[Source, list[tuple[int, int]]] = {}
        self._latest: Source = ("", "")
        # The text around the last number of the source that was read last. It is kept, since a set
        # is written once a transaction and mostly only that number changes.
        self._frame: tuple[str, str] | None = None
        for part in filter(None, re.sub(r"\s", "", text).split(",")):
            uuid, *pieces = part.split(":")
            tag = ""
            for piece in pieces:
                if not piece[0].isdigit():
                    tag = piece.lower()
                    continue
                first, _, last = piece.partition("-")
                self.add((uuid.lower(), tag), int(first), int(last or first))

    def advance(self, gtid: str) -> str:
        """Take ``uuid:7`` or ``uuid:tag:7``, which was read. Return the set with it."""
        head, _, number = gtid.rpartition(":")
        uuid, _, tag = head.partition(":")
        self.add((uuid, tag), int(number), int(number))
        return str(self)

    def __contains__(self, gtid: str) -> bool:
        """Return whether the transaction ``uuid:7`` or ``uuid:tag:7`` is in the set."""
        head, _, number = gtid.rpartition(":")
        uuid, _, tag = head.partition(":")
        intervals = self._intervals.get((uuid, tag), ())
        return any(first <= int(number) <= last for first, last in intervals)

    def add(self, source: Source, first: int, last: int) -> None:
        """Add an interval, both ends included."""
        intervals = self._intervals.setdefault(source, [])
        # Nearly always it is the next number of the same server.
        if intervals and source == self._latest and first == intervals[-1][1] + 1:
            if intervals[-1][0] == intervals[-1][1]:
                self._frame = None
            intervals[-1] = (intervals[-1][0], last)
            return
        self._latest, self._frame = source, None
        self._intervals[source] = list(_merged(sorted([*intervals, (first, last)])))

    def __str__(self) -> str:
        if not self._intervals:
            return ""
        if self._frame is None:
            self._frame = self._framed()
        before, after = self._frame
        return f"{before}{self._intervals[self._latest][-1][1]}{after}"

    def _framed(self) -> tuple[str, str]:
        texts: dict[str, str] = {}
        for source, intervals in sorted(self._intervals.items()):
            ranges = [
                f"{first}-{last}" if last > first else f"{first}" for first, last in intervals
            ]
            if source == self._latest:
                ranges[-1] = (
                    ranges[-1].rpartition("-")[0] + ("-" if "-" in ranges[-1] else "") + "\n"
                )
            uuid, tag = source
            texts[uuid] = texts.get(uuid, uuid) + (f":{tag}:" if tag else ":") + ":".join(ranges)
        before, _, after = ",".join(texts.values()).partition("\n")
        return before, after

    def packed(self) -> bytes:
        """Return the set as COM_BINLOG_DUMP_GTID takes it.

        A set with tags has the format of MySQL 8.3 and newer.
        """
        tagged = any(tag for _, tag in self._intervals)
        count = len(self._intervals)
        out = [(1 << 56 | count << 8 | 1 if tagged else count).to_bytes(8, "little")]
        for (uuid, tag), intervals in sorted(self._intervals.items()):
            out.append(UUID(uuid).bytes)
            if tagged:
                out.append(bytes([len(tag) << 1]) + tag.encode())
            out.append(len(intervals).to_bytes(8, "little"))
            out += (n.to_bytes(8, "little") for first, last in intervals for n in (first, last + 1))
        return b"".join(out)

    @classmethod
    def unpack(cls, data: bytes) -> "MysqlGtidSet":
        """Return the set in the body of a PREVIOUS_GTIDS event, the inverse of `packed`."""
        gtid_set = cls()
        at = 8
        tagged = data[7] == 1
        count = int.from_bytes(data[1:7] if tagged else data[:8], "little")
        for _ in range(count):
            uuid = str(UUID(bytes=data[at : at + 16]))
            tag = ""
            at += 16
            if tagged:
                size = data[at] >> 1
                tag = data[at + 1 : at + 1 + size].decode()
                at += 1 + size
            intervals = int.from_bytes(data[at : at + 8], "little")
            for _ in range(intervals):
                first = int.from_bytes(data[at + 8 : at + 16], "little")
                end = int.from_bytes(data[at + 16 : at + 24], "little")
                gtid_set.add((uuid, tag), first, end - 1)
                at += 16
            at += 8
        return gtid_set


def _merged(intervals: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    start, end = intervals[0]
    for first, last in intervals[1:]:
        if first > end + 1:
            yield start, end
            start = first
        end = max(end, last)
    yield start, end
