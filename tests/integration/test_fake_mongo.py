"""The MongoDB that the simulation of two writers plays answers as the real one does."""

from collections.abc import Callable
from typing import Any

import pytest
from pymongo import DeleteMany, InsertOne, ReplaceOne, UpdateOne
from pymongo.errors import BulkWriteError, OperationFailure

from tests.simulation.mongo import Server
from tests.simulation.world import World

Answers = list[Any]
KEPT = [
    {"_id": 1, "name": "a", "related": ["x", "y"], "at": {"day": 3}, "version": "10"},
    {"_id": 2, "name": "b", "related": ["y"], "at": {"day": 4}, "version": "20"},
    {"_id": 3, "name": None, "version": "30"},
]
QUERIES: list[dict[str, Any]] = [
    {"_id": {"$in": [1, 3, 9]}},
    {"related": {"$in": ["y"]}},
    {"$or": [{"_id": 3}, {"related": "x"}]},
    {"name": None},
    {"missing": None},
    {"related": {"$exists": False}},
    {"at.day": {"$gt": 3}},
    {"version": {"$lte": "20"}},
    {"name": {"$ne": "a"}},
    {"name": {"$nin": ["a", None]}},
    {"name": {"$gt": ""}},
    {"name": {"$type": "string"}},
]


def outcome(act: Callable[[], Any]) -> Any:
    """Return what a call answers, or how it fails."""
    try:
        answer = act()
    except BulkWriteError as error:
        return [(one["index"], one["code"]) for one in error.details["writeErrors"]]
    except OperationFailure as error:
        return error.code
    return getattr(answer, "matched_count", answer)


def found(things: Any, query: dict[str, Any] | None = None) -> Answers:
    return sorted(things.find(query or {}), key=lambda one: str(one["_id"]))


def asked(database: Any) -> Answers:
    """Ask queries and writes outside of transactions."""
    things = database.things
    answers: Answers = [outcome(lambda: things.bulk_write([InsertOne(dict(one)) for one in KEPT]))]
    answers += [[one["_id"] for one in found(things, query)] for query in QUERIES]
    writes: list[list[Any]] = [
        [InsertOne({"_id": 1}), InsertOne({"_id": 4}), InsertOne({"_id": 4})],
        [UpdateOne({"_id": 1}, {"$set": {"at.day": 5}, "$inc": {"n": 1}})],
        [UpdateOne({"_id": 1}, {"$unset": {"name": "", "at.day": ""}, "$max": {"n": 7}})],
        [UpdateOne({"_id": 8}, {"$setOnInsert": {"n": 1}, "$set": {"m": 2}}, upsert=True)],
        [UpdateOne({"_id": 8}, {"$setOnInsert": {"n": 9}}, upsert=True)],
        [ReplaceOne({"_id": 2, "version": "20"}, {"_id": 2, "version": "21"})],
        [ReplaceOne({"_id": 2, "version": "20"}, {"_id": 2, "version": "22"})],
        [ReplaceOne({"_id": 2, "version": "20"}, {"_id": 2}, upsert=True)],
        [DeleteMany({"_id": {"$in": [3, 4]}})],
    ]
    for operations in writes:
        answers += [
            outcome(lambda given=operations: things.bulk_write(given, ordered=False)),  # type: ignore[misc]
            found(things),
        ]
    return answers


def transacted(database: Any) -> Answers:
    """Let transactions meet each other, and writes outside of them."""
    client, things = database.client, database.things
    things.bulk_write([InsertOne({"_id": 1, "n": 0}), InsertOne({"_id": 2, "n": 0})])
    first, second = client.start_session(), client.start_session()
    answers: Answers = []

    def write(session: Any, *operations: Any) -> None:
        answers.append(outcome(lambda: things.bulk_write(list(operations), session=session)))

    def end(session: Any) -> None:
        answers.append(outcome(session.commit_transaction))
        answers.append(found(things))

    more = UpdateOne({"_id": 1}, {"$inc": {"n": 1}})
    same = UpdateOne({"_id": 1}, {"$set": {"n": 0}})
    take: dict[str, Any] = {"upsert": True, "return_document": True, "maxTimeMS": 100}

    first.start_transaction()  # it sees what is committed, and shows nothing before its commit
    write(first, more, InsertOne({"_id": 3}))
    answers.append(found(things))
    end(first)
    things.bulk_write([UpdateOne({"_id": 1}, {"$set": {"n": 0}})])

    for meeting in (more, same):  # what changes nothing meets nobody
        first.start_transaction()
        write(first, meeting)
        answers.append(
            outcome(lambda: things.find_one_and_update({"_id": 1}, {"$inc": {"m": 1}}, **take))
        )
        end(first)

    first.start_transaction()  # written since its first question
    write(first, UpdateOne({"_id": 2}, {"$inc": {"n": 1}}))
    things.bulk_write([UpdateOne({"_id": 1}, {"$inc": {"n": 1}})])
    write(first, more)
    end(first)

    first.start_transaction()  # of two, the second to write a document
    second.start_transaction()
    write(first, more)
    write(second, more)
    end(second)
    end(first)

    first.start_transaction()  # the first error ends it
    write(first, InsertOne({"_id": 5}), InsertOne({"_id": 1}))
    end(first)

    first.start_transaction()  # its session is ended by somebody
    write(first, more)
    client.admin.command("killSessions", [{"id": first.session_id["id"]}])
    things.bulk_write([UpdateOne({"_id": 1}, {"$inc": {"n": 1}})])
    end(first)
    first.start_transaction()
    write(first, more)
    end(first)
    first.end_session()
    second.end_session()
    return answers


@pytest.mark.by_hand
@pytest.mark.parametrize("ask", [asked, transacted])
def test_the_played_server_answers_as_the_real_one(
    mongo_database: Any, ask: Callable[[Any], Answers]
) -> None:
    world = World(1)
    world.quiet = True
    played = ask(Server(world).database())
    real = ask(mongo_database)
    for number, (answer, expected) in enumerate(zip(played, real, strict=True)):
        assert answer == expected, f"answer {number}"
    assert len(real) > 20
