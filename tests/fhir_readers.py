"""The two FHIR destinations as somebody else reads them: a server by its search, files by their
index.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx

Resource = dict[str, Any]
TYPES = ("Observation", "Condition", "MedicationStatement")


def pages(url: str | None) -> Iterator[Resource]:
    """All pages of a search."""
    with httpx.Client(headers={"Cache-Control": "no-cache"}, timeout=60) as client:
        while url:
            page = client.get(url).raise_for_status().json()
            yield from (entry["resource"] for entry in page.get("entry", ()))
            url = next((link["url"] for link in page["link"] if link["relation"] == "next"), None)


def lines(folder: Path) -> Iterator[Resource]:
    """All lines that count: so many bytes of each file as its index says."""
    if not (folder / "index.sqlite").exists():
        return
    with closing(sqlite3.connect(f"file:{folder}/index.sqlite?mode=ro", uri=True)) as index:
        counted = dict(index.execute("SELECT type, bytes FROM files"))
    for type_, size in counted.items():
        data = (folder / f"{type_}.ndjson").read_bytes()[:size]
        assert len(data) == size
        assert data.endswith(b"\n")
        yield from map(json.loads, data.splitlines())


def newest(folder: Path) -> list[Resource]:
    """The last line about each resource."""
    return list({(one["resourceType"], one["id"]): one for one in lines(folder)}.values())


def of_hospital(url: str, name: str) -> Iterator[Resource]:
    """All that a server holds of a hospital (with its prefix), live or not."""
    for type_ in TYPES:
        yield from pages(
            f"{url}/{type_}?{urlencode({'identifier': f'urn:openmrs:{name}:obs|', '_count': 1000})}"
        )
