"""The Patient Passport's MongoDB.

It has the links of people, a mirror of their rows, and the records that the Passport shows.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager

from pydantic import Field, SecretStr

from destinations.mongo.client import Mongo, connected, ensure_indexes
from destinations.mongo.contradictions import Mode
from destinations.mongo.people import People
from destinations.mongo.registrations import Registrations
from destinations.mongo.sink import MongoSink, RulesByHospital
from meaning.rules import MappingRules, load
from passport import sink as sinks
from passport.errors import Fatal
from passport.settings import Destination, Model, Settings

ORDER = "newest-wins"


class Options(Model):
    """The options of a destination of type mongo.

    `link_key` is the secret with which people's national ids are hashed. Never change it once it is
    in use. `contradictions` says what becomes of a link whose hospital and Passport contradict each
    other in year of birth or sex, see `destinations.mongo.contradictions`.
    """

    uri: SecretStr
    database: str = "passport"
    link_key: SecretStr = Field(min_length=1)
    link_medical_history: bool = False
    contradictions: Mode = "count"
    tombstone_ttl_days: int = Field(30, ge=1, le=3650)
    sweep_s: float = Field(300, gt=0)

    @property
    def key(self) -> bytes:
        return self.link_key.get_secret_value().encode()


def connect(options: Options, settings: Settings, destination: Destination) -> MongoSink:
    """Return a sink that is ready to write.

    Raises NotReady if the server is away. Raises Fatal if it refuses us or is no replica set.
    """
    rules = rules_by_hospital(settings, destination)
    client, database = connected(options.uri.get_secret_value(), options.database)
    try:
        ensure_indexes(database, options.tombstone_ttl_days)
    except BaseException:
        client.close()
        raise
    registrations = Registrations(database, options.key, options.sweep_s, options.contradictions)
    registrations.start()
    return MongoSink(
        client,
        database,
        settings,
        rules,
        People(database, options.key, options.contradictions),
        registrations,
        link_medical_history=options.link_medical_history,
    )


def rules_by_hospital(settings: Settings, destination: Destination) -> RulesByHospital:
    """Return the rules of each hospital: those of its own file before the destination's.

    Raises Fatal, which names the file that is no mapping.
    """
    shared = load(destination.mapping)
    rules: dict[str, MappingRules] = {}
    for hospital_id, hospital in settings.hospitals.items():
        rules[hospital_id] = load(hospital.mapping, shared)
    return rules


@contextmanager
def opened(settings: Settings, destination: str) -> Iterator[tuple[Mongo, RulesByHospital]]:
    """Open a destination's database and its rules, for commands that look at it.

    Raises Fatal if the destination isn't of type mongo, and NotReady if the server is away.
    """
    chosen = settings.destinations.get(destination)
    if chosen is None or chosen.type != "mongo":
        names = [name for name, other in settings.destinations.items() if other.type == "mongo"]
        raise Fatal(
            f"destination {destination!r} has no records and can't be compared; "
            f"of type mongo there is: {', '.join(names) or 'none'}",
            hint="passport config show   # destinations",
        )
    options = sinks.options(destination, chosen)
    rules = rules_by_hospital(settings, chosen)
    client, database = connected(options.uri.get_secret_value(), options.database)
    with closing(client):
        yield database, rules
