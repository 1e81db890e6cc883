"""The OpenAPI document in docs is the current one."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from tests.integration import portal_site as ps
from tests.integration.portal_site import Site
from tests.servers import fresh_name

DOCUMENT = Path(__file__).parents[2] / "docs/reference/portal-api.json"


@pytest.fixture(scope="module")
def site(mongo_url: str) -> Iterator[Site]:
    name = fresh_name()
    with MongoClient[dict[str, Any]](mongo_url, tz_aware=True) as client:
        ps.fill(client[name])
        with ps.running(client[name]) as found:
            yield found
        client.drop_database(name)


def test_the_document_is_the_current_one(site: Site) -> None:
    """When it isn't: make portal-api."""
    assert json.loads(DOCUMENT.read_text(encoding="utf-8")) == site.client().get("/openapi.json").json()
