"""Recognises managed services and clusters, and says what is done differently there. Pure.

What is known of each, and from where, is in docs/explanation/managed-servers.md. None of the
managed services was tried: there is no account of one to test with.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from passport.check import Check

PAGE = "docs/explanation/managed-servers.md says what is known of it"


@dataclass(frozen=True, slots=True)
class Service:
    """A place where a server runs; `name` is "" for a server of one's own.

    `set_variable` is how its DBA sets a variable: a text with places for `name` and `value`.
    `enable_binlog` is how the binlog is turned on. `is_managed` says that nobody has its my.cnf.
    """

    name: str
    set_variable: str
    enable_binlog: str
    is_managed: bool = True

    def how_to_set(self, name: str, value: str) -> str:
        """Return what the DBA does to set a variable."""
        if not self.is_managed and not value.isdigit():
            value = f"'{value}'"
        return self.set_variable.format(name=name, value=value)


def _own(name: str) -> Service:
    return Service(
        name,
        "SET GLOBAL {name} = {value};  -- and in my.cnf",
        "in my.cnf: log_bin=binlog, server_id=<a number of its own>; then restart the server",
        is_managed=False,
    )


OWN = _own("")
PERCONA = _own("Percona Server")
XTRADB_CLUSTER = _own("Percona XtraDB Cluster")
GALERA = _own("MariaDB Galera Cluster")
RDS = Service(
    "Amazon RDS",
    "in the instance's DB parameter group: {name} = {value}",
    "turn on automated backups: a backup retention period of a day or more",
)
AURORA = Service(
    "Amazon Aurora MySQL",
    "in the DB cluster parameter group: {name} = {value}; then reboot the writer",
    "read the cluster's writer endpoint; in the DB cluster parameter group: binlog_format = ROW;"
    " then reboot the writer",
)
CLOUD_SQL = Service(
    "Google Cloud SQL",
    "gcloud sql instances patch INSTANCE --database-flags={name}={value}"
    "   # name all flags: those left out are reset",
    "gcloud sql instances patch INSTANCE --enable-bin-log",
)


def recognise(variables: Mapping[str, str]) -> Service:
    """Return where a server runs. `variables` are by their names in lower case."""
    comment = variables.get("version_comment", "").lower()
    if "aurora_version" in variables:
        return AURORA
    if "/rdsdbbin/" in variables.get("basedir", ""):
        return RDS
    if "-google" in variables.get("version", ""):
        return CLOUD_SQL
    if "percona xtradb cluster" in comment:
        return XTRADB_CLUSTER
    if variables.get("wsrep_on") == "ON":
        return GALERA
    if "percona" in comment:
        return PERCONA
    return OWN


def checks(service: Service, variables: Mapping[str, str]) -> Iterator[Check]:
    """Yield what there is to say of the place where the server runs."""
    if service == GALERA:
        yield _galera(variables)
    elif service != OWN:
        yield Check("service", None, f"{service.name}: not tried with this project", PAGE)


def _galera(variables: Mapping[str, str]) -> Check:
    """Check that all nodes of the cluster give a transaction the same GTID.

    Only then can a reader go on by GTID at another node. Else that costs a snapshot.
    """
    if variables.get("wsrep_gtid_mode") == "ON":
        return Check("service", True, f"{GALERA.name}, wsrep_gtid_mode is ON")
    return Check(
        "service",
        None,
        f"{GALERA.name}, wsrep_gtid_mode is OFF: going on at another node costs a snapshot",
        "in my.cnf of every node: wsrep_gtid_mode=ON, log_slave_updates=ON, and one and the same"
        " wsrep_gtid_domain_id; then restart them one by one",
    )
