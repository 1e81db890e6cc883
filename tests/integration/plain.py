"""The topic's last state of each key, and the table's rows.

Both are read without the product's own parsing and queries.
"""

import json
from datetime import datetime
from decimal import Decimal
from typing import Any

from openmrs.tables import OBS
from passport.settings import Settings
from tests import stream
from tests.servers import Address

Rows = dict[int, dict[str, Any]]


def told(settings: Settings) -> Rows:
    """Return the rows that the topic tells.

    The newest version wins, and a chunk takes away what it does not name.
    """
    rows: Rows = {}
    versions: dict[int, str] = {}

    def put(key: int, row: dict[str, Any] | None, version: str) -> None:
        if version >= versions.get(key, ""):
            versions[key] = version
            rows.pop(key, None)
            if row is not None:
                rows[key] = row

    for event in (json.loads(record.value) for record in stream.raw(settings)):
        version = event["source"]["version"]
        if event["kind"] == "row":
            for image, row in ((event["before"], None), (event["after"], event["after"])):
                if image is not None:
                    put(image["obs_id"], row, version)
        elif event["kind"] == "chunk":
            first, to, present = event["first"], event["to"], {*event["keys"]}
            for key in [*rows]:
                if (
                    key not in present
                    and (first is None or key > first)
                    and (to is None or key <= to)
                ):
                    put(key, None, version)
    return rows


def held(address: Address, table: str = "obs") -> Rows:
    """Return the rows of obs, with the columns that may leave the hospital."""
    with (
        address.connect(init_command="SET time_zone = '+00:00'") as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(f"SHOW COLUMNS FROM {table}")
        types = {row[0]: row[1].lower() for row in cursor.fetchall() if row[0] in OBS.columns}
        cursor.execute(f"SELECT {', '.join(types)} FROM {table}")
        rows = [
            {name: _plain(value, types[name]) for name, value in zip(types, row, strict=True)}
            for row in cursor
        ]
    return {row["obs_id"]: row for row in rows}


def _plain(value: Any, column_type: str) -> Any:
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, datetime):
        digits = int(column_type.partition("(")[2][:1] or 0)
        text = value.isoformat(timespec="microseconds")[: 20 + digits if digits else 19]
        return text + "Z" * column_type.startswith("timestamp")
    return value
