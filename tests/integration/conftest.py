"""What several tests of one real server share."""

from collections.abc import Iterator

import pytest

from tests.integration.passport_database import Passport
from tests.passport_shapes import check


@pytest.fixture
def passport(mongo_url: str) -> Iterator[Passport]:
    passport = Passport(mongo_url)
    yield passport
    if passport.db.medicalrecords.estimated_document_count():
        check(passport.db)
    passport.close()
