"""Declares every setting with its type, bounds and default. passport/configuration.py reads them.

What a setting is for is written beside it in config/default.yaml and config/local.example.yaml.
"""

import re
from typing import Any, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from passport.errors import unknown_hospital

BCRYPT_HASH = re.compile(r"\$2[aby]\$\d\d\$[./A-Za-z0-9]{53}")


class Model(BaseModel):
    """A part of the settings: it never changes, and a name that is no setting is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Tls(Model):
    """The encryption of a connection to MySQL.

    `preferred` encrypts when the server offers it, and verifies nothing. A network needs
    `verify_identity`.
    """

    mode: Literal["disabled", "preferred", "verify_ca", "verify_identity"] = "preferred"
    ca: str | None = None
    cert: str | None = None
    key: str | None = None


class MySQL(Model):
    """A hospital's server, and the account that reads it."""

    host: str
    port: int = Field(3306, ge=1, le=65535)
    user: str
    password: SecretStr = SecretStr("")
    database: str = "openmrs"
    tls: Tls = Tls()
    connect_timeout_s: float = Field(5, gt=0)
    read_timeout_s: float = Field(20, gt=0)


class LoadBudget(Model):
    """The load that all jobs of one hospital together may put on its server, in all processes.

    These jobs are snapshots, rows read again, re-enrichment, polling, comparing and verifying.
    """

    rows_per_s: int = Field(20_000, ge=1)
    queries_per_s: int = Field(100, ge=1)
    chunk_rows: int = Field(2_000, ge=1, le=100_000)


HOURS = r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$"


class PlaceholderHospital(Model):
    """The Passport's hospital that is made for a hospital which the Passport doesn't have yet."""

    address: str = "Not given"
    contact: str = "Not given"
    licence: str | None = None


class Hospital(Model):
    """One hospital. Its partition is its own for ever: the order of its changes depends on it."""

    name: str
    partition: int = Field(ge=0)
    timezone: str
    capture: Literal["binlog", "polling"] = "binlog"
    national_id_type: str
    locales: tuple[str, ...] = ("en",)
    # Names are kept in these locales too, for readers of other languages.
    name_locales: tuple[str, ...] = Field(("en", "fr", "rw"), max_length=12)
    provider_roles: tuple[str, ...] = ()
    mapping: str | None = None  # the hospital's own rules, asked before all others
    passport_hospital: str | PlaceholderHospital = PlaceholderHospital()
    load_budget: LoadBudget = LoadBudget()
    # Quiet hours on the hospital's own clock, as 22:00-05:00. Comparing begins within them only,
    # and a snapshot reads within them only.
    compare_hours: str | None = Field(None, pattern=HOURS)
    snapshot_hours: str | None = Field(None, pattern=HOURS)
    poll_interval_s: float = Field(60, gt=0)
    server_id: int | None = Field(None, ge=1, le=2**32 - 1)
    mysql: MySQL

    @property
    def kept_locales(self) -> tuple[str, ...]:
        """The locales in which names are kept: the hospital's own, and those for readers."""
        return tuple(dict.fromkeys((*self.locales, *self.name_locales)))

    @field_validator("timezone")
    @classmethod
    def _zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError):
            raise ValueError("not an IANA time zone, such as Africa/Kigali") from None
        return value


class Kafka(Model):
    """The brokers, the three topics, and how a client signs in."""

    bootstrap: str
    topic: str = "openmrs.changes"
    positions_topic: str = "openmrs.positions"
    dead_letters_topic: str = "openmrs.changes.dead-letters"
    replication_factor: int = Field(1, ge=1)
    retention_ms: int = -1
    compression: Literal["none", "gzip", "lz4", "zstd"] = "none"
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    ssl_cafile: str | None = None

    @property
    def silent_hint(self) -> str:
        """The hint for brokers that don't answer.

        Kafka's client hides a refused sign-in or certificate behind a time-out, so that the hint
        names those settings too.
        """
        hint = "is it running and reachable from here"
        if self.security_protocol != "PLAINTEXT":
            hint += "; are kafka.sasl_* right, and is kafka.ssl_cafile its authority"
        return f"{hint}? passport check"


class Destination(Model):
    """A destination. Its `options` are checked by its module's own Options."""

    type: str
    options: dict[str, Any] = Field(default_factory=dict)
    mapping: str | None = None  # another mapping.yaml than config/mapping.yaml


class Consumer(Model):
    """The settings of every consumer."""

    batch_records: int = Field(2_000, ge=1)
    retry_max_s: float = Field(30, gt=0)
    cache_entries: int = Field(50_000, ge=100)
    cache_ttl_s: float = Field(600, gt=0)


class Cdc(Model):
    """The settings of every reader."""

    heartbeat_s: float = Field(5, gt=0)
    checkpoint_s: float = Field(1, gt=0)
    reconnect_max_s: float = Field(30, gt=0)
    silence_s: float = Field(300, gt=0)
    headroom_alarm_s: float = Field(86_400, ge=0)
    address_check_s: float = Field(20, gt=0)


class Logs(Model):
    """The log. Its format `auto` is JSON unless a person watches."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    format: Literal["auto", "json", "console"] = "auto"


class Tracing(Model):
    """One transaction in `every` is traced; 0 traces none.

    OpenTelemetry's own variables say where the traces go.
    """

    every: int = Field(0, ge=0)


class Health(Model):
    """The endpoint of /livez, /readyz and /metrics. With `port` 0 there is none."""

    host: str = "127.0.0.1"
    port: int = Field(0, ge=0, le=65535)


class Operators(Model):
    """The operators' page. Without `password_hash` (bcrypt) there is none.

    Its numbers are read anew every `sample_s` seconds.
    """

    password_hash: SecretStr | None = None
    sample_s: float = Field(10, ge=1)

    @field_validator("password_hash")
    @classmethod
    def _bcrypt(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not BCRYPT_HASH.fullmatch(value.get_secret_value()):
            raise ValueError("not a bcrypt hash: `passport portal --hash-password` prints one")
        return value


class Portal(Model):
    """The server of the patient's and the operators' pages.

    Without `uri` it reads with the destination's account. `jwt_secret` is the Passport's
    JWT_SECRET, which signs its sessions.
    """

    host: str = "127.0.0.1"
    port: int = Field(8080, ge=0, le=65535)
    uri: SecretStr | None = None
    jwt_secret: SecretStr | None = Field(None, min_length=32)
    session_hours: float = Field(8, gt=0, le=720)
    https: bool = True
    trusted_proxies: tuple[str, ...] = ()
    max_streams: int = Field(2_000, ge=1)
    operators: Operators = Operators()


class Settings(Model):
    """The settings as a whole. They can't be made of parts that contradict each other."""

    hospitals: dict[str, Hospital]
    kafka: Kafka
    destinations: dict[str, Destination]
    consumer: Consumer = Consumer()
    cdc: Cdc = Cdc()
    logs: Logs = Logs()
    health: Health = Health()
    tracing: Tracing = Tracing()
    portal: Portal = Portal()

    def hospital(self, hospital_id: str) -> Hospital:
        """Return the settings of a hospital. Raises BadSettings, which names those that are set."""
        if hospital_id not in self.hospitals:
            raise unknown_hospital(hospital_id, self.hospitals)
        return self.hospitals[hospital_id]

    @model_validator(mode="after")
    def _own_partitions(self) -> "Settings":
        owners: dict[int, str] = {}
        for name, hospital in self.hospitals.items():
            number = hospital.partition
            if number in owners:
                owner = owners[number]
                raise ValueError(f"hospitals.{name}.partition: {number} is already that of {owner}")
            owners[number] = name
        return self
