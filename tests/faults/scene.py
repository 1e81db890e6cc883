"""Two hospitals behind proxies, with every role twice where that makes sense."""

import random

from dev import hospital as generator
from tests.e2e.stage import Hospital, Stage
from tests.faults.kinds import Scene
from tests.faults.proxy import Proxy

REGISTERED = 0.7
# Roles give up on a hanging server, and come back to one that was away, sooner than by default.
SETTINGS = {"consumer": {"retry_max_s": 5}}
# A snapshot after a gap goes in front of what is new: it may take no more than the consumers can
# carry beside it.
BUDGET = {"rows_per_s": 800}


def hospitals() -> list[Hospital]:
    return [
        Hospital(key, number, generator.NATIONAL_ID_TYPE)
        for number, key in enumerate(("kigali", "huye"))
    ]


def set_up(stage: Stage, seed: int, patients: int = 200) -> Scene:
    """Fills the hospitals, registers most patients, starts the roles; `kigali` has a standby
    reader.
    """
    proxies = {}
    for number, (key, hospital) in enumerate(stage.hospitals.items()):
        with hospital.connect() as connection:
            generator.create(connection, seed=seed + number, patients=patients)
            able = [digits for _, digits in generator.registrable(connection)]
            generator.Clinic(connection, seed=1, journal=True)  # makes the journal's table
        generator.passport_patients(
            stage.db, random.Random(1).sample(able, int(len(able) * REGISTERED))
        )
        proxies[key] = Proxy(hospital.sql.port)
        reached = {"port": proxies[key].port, "read_timeout_s": 5, "connect_timeout_s": 3}
        hospital.settings = {"mysql": reached, "load_budget": BUDGET}
    stage.write_config()
    stage.grant()
    readers = {key: [stage.role("cdc", "run", "--hospital", key)] for key in stage.hospitals}
    for some in readers.values():
        some[0].says("reading the binlog", 60)
    readers["kigali"].append(stage.role("cdc", "run", "--hospital", "kigali"))
    consumers = [stage.role("consume", "--destination", "passport") for _ in range(2)]
    reconcilers = [stage.role("reconcile", "--hospital", key) for key in stage.hospitals]
    return Scene(stage, readers, consumers, reconcilers, proxies)
