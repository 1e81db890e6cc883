"""The API does what its OpenAPI document says, whatever is asked of it; the document in docs is the
current one.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from tests.integration import portal_site as ps
from tests.integration.portal_site import Site, bearer

DOCUMENT = Path(__file__).parents[2] / "docs/reference/portal-api.json"
schema = schemathesis.openapi.from_dict(json.loads(DOCUMENT.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def site(mongo_url: str) -> Iterator[Site]:
    with ps.opened(mongo_url) as found:
        yield found


def test_the_document_is_the_current_one(site: Site) -> None:
    """When it isn't: make portal-api."""
    assert (
        json.loads(DOCUMENT.read_text(encoding="utf-8"))
        == site.client().get("/openapi.json").json()
    )


@schema.parametrize()
@hypothesis_settings(max_examples=60, suppress_health_check=list(HealthCheck))
def test_the_api_keeps_to_its_document(case: schemathesis.Case, site: Site) -> None:
    """No 5xx, only documented statuses, headers and shapes, for good and bad requests; nothing
    without a session.
    """
    answer = case.call_and_validate(base_url=site.url, headers=bearer())
    assert ps.SECRET_OF_BORIS not in answer.text
