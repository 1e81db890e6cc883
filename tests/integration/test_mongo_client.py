"""What is asked of MongoDB at once gives the same as one after the other."""

import threading
from functools import partial
from typing import Any

import pytest
from pymongo import InsertOne, UpdateOne
from pymongo.database import Database

from destinations.mongo.client import HALVED, bulk, in_parallel
from passport.errors import Retry


@pytest.mark.by_hand
def test_a_large_write_in_two_halves_tells_of_each_operation_by_its_index(
    mongo_database: Database[dict[str, Any]],
) -> None:
    rows, number = mongo_database["observations"], HALVED + 1
    known = (3, number - 2)
    bulk(rows, [InsertOne({"_id": key}) for key in known])
    matched, failed = bulk(rows, [InsertOne({"_id": key}) for key in range(number)])
    assert (matched, failed) == (0, dict.fromkeys(known, "duplicate"))
    assert rows.count_documents({}) == number
    changes = [UpdateOne({"_id": key}, {"$set": {"seen": True}}) for key in range(number + 10)]
    assert bulk(rows, changes) == (number, {})


def test_answers_come_in_order_and_an_error_waits_for_the_others() -> None:
    ended = threading.Event()

    def fail() -> None:
        raise Retry("away")

    assert in_parallel(*(partial(int, text) for text in "123")) == (1, 2, 3)
    with pytest.raises(Retry):
        in_parallel(fail, ended.set)
    assert ended.is_set()
    with pytest.raises(Retry):
        in_parallel(ended.is_set, fail)
