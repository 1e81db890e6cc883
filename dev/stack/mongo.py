"""A one-node MongoDB replica set: transactions and change streams need one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from dev.stack import install
from dev.stack.server import Server

_NOT_INITIALISED = 94
_PARAMETERS = ("--setParameter", "ttlMonitorSleepSecs=1")  # its default is 60


class Mongo(Server):
    """The replica set ``rs0`` of one mongod, without authentication.

    TTL indexes are looked at every second. `flags` come last.
    """

    def __init__(
        self,
        folder: Path | str,
        port: int = 0,
        *,
        flags: Sequence[str] = (),
        outlives: bool = False,
    ) -> None:
        super().__init__(folder, port, outlives=outlives)
        self.flags = tuple(flags)

    @property
    def url(self) -> str:
        return f"mongodb://127.0.0.1:{self.port}/?replicaSet=rs0"

    def prepare(self) -> None:
        install.mongod()
        (self.folder / "data").mkdir(exist_ok=True)

    def command(self) -> list[str]:
        place = ["--bind_ip", "127.0.0.1", "--port", str(self.port)]
        place += ["--dbpath", f"{self.folder}/data", "--nounixsocket"]
        size = ["--wiredTigerCacheSizeGB", "0.5", "--oplogSize", "256"]
        replica_set = ["--replSet", "rs0"]
        return [str(install.mongod()), *replica_set, *place, *size, *_PARAMETERS, *self.flags]

    def answers(self) -> bool:
        """Tell whether it is primary. A new replica set is initiated on the way."""
        try:
            with MongoClient[Any](
                "127.0.0.1", self.port, directConnection=True, timeoutMS=2_000
            ) as client:
                self._join(client)
                return bool(client.admin.command("hello")["isWritablePrimary"])
        except PyMongoError:
            return False

    def _join(self, client: MongoClient[Any]) -> None:
        """Initiate the replica set, or tell it that its only member has another port now."""
        host = f"127.0.0.1:{self.port}"
        try:
            config = client.admin.command("replSetGetConfig")["config"]
        except OperationFailure as error:
            if error.code != _NOT_INITIALISED:
                raise
            members = [{"_id": 0, "host": host}]
            client.admin.command("replSetInitiate", {"_id": "rs0", "members": members})
            return
        if config["members"][0]["host"] != host:
            config["members"][0]["host"] = host
            config["version"] += 1
            client.admin.command("replSetReconfig", config, force=True)
