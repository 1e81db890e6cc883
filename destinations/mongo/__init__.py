"""The Patient Passport's MongoDB: links of people, a mirror of their rows, and the records that the
Passport shows.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager

from pydantic import Field, SecretStr

from destinations.mongo.client import Mongo, connected, ensure_indexes
from destinations.mongo.people import People
from destinations.mongo.projection.mapping import MappingRules, load
from destinations.mongo.registrations import Registrations
from destinations.mongo.sink import MongoSink
from passport import sink as sinks
from passport.errors import Fatal
from passport.settings import Destination, Model, Settings

ORDER = "newest-wins"


class Options(Model):
    """The options of a destination of type mongo.

    `link_key` is the secret with which people's national ids are hashed. Never change it once it is
    in use.
    """

    uri: SecretStr
    database: str = "passport"
    link_key: SecretStr = Field(min_length=1)
    link_medical_history: bool = False
    tombstone_ttl_days: int = Field(30, ge=1, le=3650)
    sweep_s: float = Field(300, gt=0)

    @property
    def key(self) -> bytes:
        return self.link_key.get_secret_value().encode()


def connect(given: Options, settings: Settings, destination: Destination) -> MongoSink:
    """A sink that is ready to write. NotReady (server away), Fatal (refused, no replica set)."""
    rules = load(destination.mapping)
    client, database = connected(given.uri.get_secret_value(), given.database)
    try:
        ensure_indexes(database, given.tombstone_ttl_days)
    except BaseException:
        client.close()
        raise
    registrations = Registrations(database, given.key, given.sweep_s)
    registrations.start()
    people = People(database, given.key)
    history = given.link_medical_history
    return MongoSink(
        client, database, settings, rules, people, registrations, link_medical_history=history
    )


@contextmanager
def opened(settings: Settings, destination: str) -> Iterator[tuple[Mongo, MappingRules]]:
    """A destination's database and mapping, for commands that look at it. Fatal when it isn't a
    mongo one; NotReady.
    """
    known = settings.destinations.get(destination)
    if known is None or known.type != "mongo":
        names = (
            ", ".join(name for name, one in settings.destinations.items() if one.type == "mongo")
            or "none"
        )
        wrong = f"destination {destination!r} has no records and can't be compared; of type mongo there is: {names}"
        raise Fatal(wrong, hint="passport config show   # destinations")
    wanted, rules = sinks.options(destination, known), load(known.mapping)
    client, database = connected(wanted.uri.get_secret_value(), wanted.database)
    with closing(client):
        yield database, rules
