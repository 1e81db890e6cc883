"""Several servers behind one address, proxies and managed services, seen by `passport check`."""

from pathlib import Path
from typing import Any

import pytest

from cdc.checks.services import AURORA, CLOUD_SQL, OWN, PERCONA, RDS, XTRADB_CLUSTER, recognise
from dev.stack import MariaDB
from tests.balancer import Balancer
from tests.hospitals import checked, hospital, reading


def test_several_servers_behind_one_address_are_told(own: Any, kafka_bootstrap: str) -> None:
    first, second = own(MariaDB), own(MariaDB)
    address = hospital(first, patients=2)
    hospital(second, patients=2)
    with Balancer(first.port, second.port) as balancer:
        behind_it = address._replace(port=balancer.port)
        check = checked(reading(behind_it, kafka_bootstrap))["one server"]
        assert check.ok is False
        assert str(first.port) in check.detail
        assert str(second.port) in check.detail
        assert "hospitals.kigali.mysql.host" in check.hint
    with Balancer(first.port) as balancer:
        by_name = checked(reading(address._replace(port=balancer.port), kafka_bootstrap))
        assert by_name["one server"].ok
        assert by_name["rehearsal"].ok

    with Balancer(first.port, greets_as="8.0.11") as balancer:
        by_name = checked(reading(address._replace(port=balancer.port), kafka_bootstrap))
        greeting = by_name["greeting"]
        assert greeting.ok is False
        assert "a proxy greets as 8.0.11, the server behind it is 10.11" in greeting.detail
        assert "rehearsal" not in by_name, "a MariaDB is not asked in MySQL's words"
    with Balancer(first.port, greets_as="5.5.5-10.6.1-MariaDB") as balancer:
        by_name = checked(reading(address._replace(port=balancer.port), kafka_bootstrap))
        assert by_name["greeting"].ok is None


def test_rds_is_known_by_its_folder(own_mariadb: Any, kafka_bootstrap: str, tmp_path: Path) -> None:
    """Tried on a MariaDB whose folder has the name that it has there."""
    folder = tmp_path / "rdsdbbin/mariadb"
    folder.mkdir(parents=True)
    server = own_mariadb(flags=[f"--basedir={folder}/", "--binlog-row-image=MINIMAL"])
    address = hospital(server, patients=2)
    by_name = checked(reading(address, kafka_bootstrap))
    assert by_name["service"].ok is None
    assert by_name["service"].detail.startswith("Amazon RDS")
    assert (
        by_name["binlog_row_image"].hint
        == "in the instance's DB parameter group: binlog_row_image = FULL"
    )


@pytest.mark.parametrize(
    ("variables", "service"),
    [
        ({"version": "9.7.4", "version_comment": "(Debian)", "basedir": "/usr/"}, OWN),
        ({"version": "8.0.39", "basedir": "/rdsdbbin/mysql-8.0.39.R2/"}, RDS),
        ({"version": "10.11.9-MariaDB-log", "basedir": "/rdsdbbin/mariadb-10.11.9.R1/"}, RDS),
        (
            {
                "version": "8.0.39",
                "aurora_version": "3.08.0",
                "basedir": "/rdsdbbin/oscar-8.0.mysql_aurora.3.08.0.0/",
            },
            AURORA,
        ),
        ({"version": "8.0.37-google", "version_comment": "(Google)"}, CLOUD_SQL),
        (
            {"version": "8.0.36-28", "version_comment": "Percona Server (GPL), Release 28"},
            PERCONA,
        ),
        (
            {
                "version": "8.0.36-28.1",
                "version_comment": "Percona XtraDB Cluster (GPL), Release rel28",
                "wsrep_on": "ON",
            },
            XTRADB_CLUSTER,
        ),
    ],
)
def test_services_are_known_by_their_variables(variables: dict[str, str], service: Any) -> None:
    """As their makers and users write them; only RDS' and Galera's are tried on a real server."""
    assert recognise(variables) == service
