"""Accounts, passwords and certificates are exchanged while a clinic works, as
docs/how-to/rotate-secrets.md says.
"""

import base64
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient
from kafka.admin import (
    ConfigResource,
    ConfigResourceType,
    ScramMechanism,
    UserScramCredentialDeletion,
    UserScramCredentialUpsertion,
)

from dev import hospital as generator
from dev.stack import Kafka, Mongo, ports
from tests.certificates import Authority
from tests.e2e.roles import Role
from tests.e2e.stage import LINK_KEY, PASSWORD, Hospital, Stage
from tests.e2e.ward import equal
from tests.eventually import eventually

SCRAM = ScramMechanism.SCRAM_SHA_512
MODULE = "org.apache.kafka.common.security.scram.ScramLoginModule required;"


class Site:
    """Servers that ask for accounts and show certificates; `serve` puts an authority's certificates
    in place.
    """

    def __init__(self, folder: Path, old: Authority) -> None:
        self.folder, self.served = folder, folder / "served"
        self.served.mkdir()
        self.ca = folder / "trusted.pem"
        self.secured = ports.kept(folder / "secured.port")
        self.old = old
        self.put(old)
        mysql = [
            f"--ssl-{name}={self.served}/mysql.{end}"
            for name, end in (("cert", "pem"), ("key", "key"))
        ]
        self.kigali = Hospital(
            "kigali", 0, generator.NATIONAL_ID_TYPE, flags=[*mysql, f"--ssl-ca={old.file}"]
        )
        self.stage = Stage(folder, [self.kigali], {})
        self.stage.kafka = Kafka(folder / "kafka", settings=self._kafka())
        self.stage.mongo = Mongo(folder / "mongo", flags=self._mongo(old))

    def put(self, authority: Authority) -> None:
        """Where the servers read them."""
        for file in (
            *authority.server("mysql"),
            authority.bundle("kafka"),
            authority.bundle("mongo"),
        ):
            shutil.copy(file, self.served / file.name)

    def trust(self, *authorities: Authority) -> None:
        self.ca.write_bytes(b"".join(one.file.read_bytes() for one in authorities))

    def _kafka(self) -> list[str]:
        ours = f"SECURED://127.0.0.1:{self.secured}"
        return [
            f"listeners=PLAINTEXT://127.0.0.1:{{port}},{ours},CONTROLLER://127.0.0.1:{{controller}}",
            f"advertised.listeners=PLAINTEXT://127.0.0.1:{{port}},{ours}",
            "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SECURED:SASL_SSL",
            "listener.name.secured.ssl.keystore.type=PEM",
            f"listener.name.secured.ssl.keystore.location={self.served}/kafka.bundle.pem",
            "listener.name.secured.sasl.enabled.mechanisms=SCRAM-SHA-512",
            f"listener.name.secured.scram-sha-512.sasl.jaas.config={MODULE}",
        ]

    def _mongo(self, old: Authority) -> list[str]:
        key = self.folder / "mongo.key"
        key.write_bytes(base64.b64encode(os.urandom(96)))
        key.chmod(0o400)
        tls = [
            "--tlsMode",
            "preferTLS",
            "--tlsCertificateKeyFile",
            f"{self.served}/mongo.bundle.pem",
        ]
        tls += ["--tlsCAFile", str(old.file), "--tlsAllowConnectionsWithoutCertificates"]
        return [
            "--keyFile",
            str(key),
            "--transitionToAuth",
            *tls,
        ]  # who signs in must have the right password

    def settings(self, generation: str, password: str = "") -> None:
        """The settings file, with the accounts of a generation."""
        account = {
            "user": f"passport_{generation}",
            "password": password or f"{PASSWORD}-{generation}",
        }
        tls = {"mode": "verify_identity", "ca": str(self.ca)}
        self.kigali.settings = {"mysql": {**account, "tls": tls}}
        uri = self.stage.mongo.url.replace("//", f"//{account['user']}:{account['password']}@")
        uri += f"&authSource=passport&tls=true&tlsCAFile={self.ca}"
        options = {"uri": uri, "database": "passport", "link_key": LINK_KEY}
        kafka = {
            "bootstrap": f"127.0.0.1:{self.secured}",
            "security_protocol": "SASL_SSL",
            "ssl_cafile": str(self.ca),
        }
        kafka |= {"sasl_mechanism": "SCRAM-SHA-512", "sasl_username": account["user"]}
        kafka |= {"sasl_password": account["password"]}
        destinations = {"passport": {"type": "mongo", "options": options}}
        self.stage.write_config(kafka=kafka, destinations=destinations)

    def add(self, generation: str) -> None:
        """Accounts beside those that are there; `settings` names them."""
        user, password = f"passport_{generation}", f"{PASSWORD}-{generation}"
        lines = [line for line in self.stage.granted(self.kigali) if not line.startswith("--")]
        self.kigali.sql.execute(*(line.replace("choose-a-password", password) for line in lines))
        with self.admin() as admin:
            admin.alter_user_scram_credentials(
                [UserScramCredentialUpsertion(user, SCRAM, password.encode(), 4096)]
            )
        roles = [{"role": "readWrite", "db": "passport"}]
        self.stage.db.command("createUser", user, pwd=password, roles=roles)

    def drop(self, generation: str) -> None:
        user = f"passport_{generation}"
        for (host,) in self.kigali.sql.execute(
            f"SELECT Host FROM mysql.user WHERE User = '{user}'"
        ):
            self.kigali.sql.execute(f"DROP USER '{user}'@'{host}'")
        with self.admin() as admin:
            admin.alter_user_scram_credentials([UserScramCredentialDeletion(user, SCRAM)])
        self.stage.db.command("dropUser", user)

    def change(self, generation: str, password: str) -> None:
        """Beneath whoever is signed in."""
        user = f"passport_{generation}"
        for (host,) in self.kigali.sql.execute(
            f"SELECT Host FROM mysql.user WHERE User = '{user}'"
        ):
            self.kigali.sql.execute(f"ALTER USER '{user}'@'{host}' IDENTIFIED BY '{password}'")
        with self.admin() as admin:
            admin.alter_user_scram_credentials(
                [UserScramCredentialUpsertion(user, SCRAM, password.encode(), 4096)]
            )
        self.stage.db.command("updateUser", user, pwd=password)

    def reload(self) -> None:
        """What is served is read again by the servers, without a restart of theirs."""
        self.kigali.sql.execute("FLUSH SSL")
        self.stage.client.admin.command("rotateCertificates")
        name = "listener.name.secured.ssl.keystore.location"
        with self.admin() as admin:
            place = str(self.served / "kafka.bundle.pem")
            broker = ConfigResource(ConfigResourceType.BROKER, "1", configs={name: place})
            assert admin.alter_configs([broker], raise_on_unknown=False) == {"broker": {"1": "OK"}}

    def disconnect(self) -> None:
        """Every connection of ours to the hospital is made anew."""
        self.kigali.sql.execute("KILL USER passport_one", "KILL USER passport_two")

    @contextmanager
    def admin(self) -> Iterator[Any]:
        admin = KafkaAdminClient(bootstrap_servers=self.stage.kafka.url)
        yield admin
        admin.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path, Authority(tmp_path / "old", "old"))
    try:
        site.stage.start_servers()
        site.stage.fill(site.kigali, seed=31, patients=20)
        yield site
    finally:
        site.stage.close()


def roles(site: Site) -> Mapping[str, Role]:
    return {
        "reader": site.stage.role("cdc", "run", "--hospital", "kigali"),
        "consumer": site.stage.role("consume", "--destination", "passport"),
    }


def progress(site: Site) -> int:
    return int((site.stage.db["progress"].find_one() or {"offset": 0})["offset"])


def goes_on(site: Site) -> None:
    before = progress(site)
    eventually(lambda: progress(site) > before + 5, "what is written now arrives")


def test_accounts_and_authority_are_exchanged_and_nothing_is_lost(
    site: Site, tmp_path: Path
) -> None:
    old, new = Authority(tmp_path / "old2", "old2"), Authority(tmp_path / "new", "new")
    site.put(old)
    site.reload()
    site.trust(old)
    site.settings("one")
    site.add("one")
    running = roles(site)
    with site.kigali.at_work(9, rate=20):
        goes_on(site)
        site.settings("two")  # both are good now
        site.add("two")
        site.trust(old, new)
        for role in running.values():
            assert role.stop() == 0, role.said()[-2000:]
            role.start()
            goes_on(site)
        site.drop("one")  # and now the second alone
        site.disconnect()
        goes_on(site)
        site.put(new)
        site.reload()
        site.disconnect()
        goes_on(site)
        site.trust(new)
        for role in running.values():
            assert role.stop() == 0, role.said()[-2000:]
            role.start()
        goes_on(site)
        checked = site.stage.run("check")
    for role in running.values():
        role.require_running()
    assert "new epoch" not in running["reader"].said().partition("reading the binlog")[2]
    assert (
        PASSWORD
        not in "".join(role.said() for role in running.values()) + checked.stdout + checked.stderr
    )
    assert equal(site.stage).rows
    assert site.stage.run("verify").returncode == 0


@pytest.mark.long
def test_passwords_changed_beneath_the_roles_end_them_and_nothing_is_lost(
    site: Site, tmp_path: Path
) -> None:
    site.trust(Authority(tmp_path / "nobody", "nobody"), site.old)
    site.settings("one")
    site.add("one")
    running = roles(site)
    with site.kigali.at_work(9, rate=20):
        goes_on(site)
        site.change(
            "one", "another-passw0rd"
        )  # who is signed in stays so, until a further connection is needed
        for server in (site.stage.kafka, site.stage.mongo):
            server.kill()
            server.start()
        assert {name: role.wait(180) for name, role in running.items()} == {
            "reader": 1,
            "consumer": 1,
        }
        # Each of the three servers refuses them. Whichever a role needs first is named.
        hints = (
            "-> set hospitals.kigali.mysql.user and .password",
            "-> check kafka.security_protocol, .sasl_*",
            "-> check user and password in options.uri",
        )
        for role in running.values():
            assert "refuse" in role.said()
            assert any(hint in role.said() for hint in hints), role.said()[-2000:]
        site.settings("one", "another-passw0rd")
        for role in running.values():
            role.start()
        goes_on(site)
    assert "another-passw0rd" not in "".join(role.said() for role in running.values())
    assert equal(site.stage).rows
    assert site.stage.run("verify").returncode == 0
