"""A hospital whose stream is unusable goes on by polling, and comes back to the stream by itself:
nothing is lost.
"""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from cdc import reader
from cdc.polling import watchdog
from cli.status_report import collect
from consumers import worker
from dev.stack import MariaDB, MySQL
from passport import sink as sinks
from passport.errors import Fatal
from passport.settings import Settings
from tests import reader_process
from tests.eventually import eventually
from tests.hospitals import clinic, saved
from tests.integration.consuming import DESTINATION, assert_equal, hospital, settings
from tests.servers import Address

SILENCE_S = 2.0
WITHIN_S = 60


class Ward:
    """A streamed hospital with its watchdog and a consumer."""

    def __init__(self, server: MariaDB | MySQL, bootstrap: str, path: Path) -> None:
        self.server, self.path = server, path
        quick = {
            "heartbeat_s": 0.5,
            "checkpoint_s": 0.1,
            "reconnect_max_s": 1,
            "silence_s": SILENCE_S,
        }
        made = settings({"kigali": server}, bootstrap, path, cdc=quick)
        polled = made.hospitals["kigali"].model_copy(update={"poll_interval_s": 0.5})
        self.settings = made.model_copy(update={"hospitals": {"kigali": polled}})

    @property
    def address(self) -> Address:
        flavour = "mariadb" if isinstance(self.server, MariaDB) else "mysql"
        return Address(flavour, "127.0.0.1", self.server.port, "root", "", "openmrs")

    @property
    def state(self) -> str:
        with contextlib.closing(sinks.connect(DESTINATION, self.settings)) as sink:
            (row,) = collect(self.settings, sink)
        return str(row["state"])

    def work(self, seconds: float = 2) -> None:
        with clinic(self.address, seed=int(time.monotonic() * 1000)):
            time.sleep(seconds)

    def equal(self) -> bool:
        try:
            assert_equal(self.settings, self.path)
        except (AssertionError, Fatal):
            return False
        return True

    def wait_equal(self) -> None:
        eventually(self.equal, "the destination equals the hospital", WITHIN_S)
        assert_equal(self.settings, self.path)


@contextlib.contextmanager
def beside(ward: Ward) -> Iterator[None]:
    """The watchdog, and a consumer."""
    stop = threading.Event()
    consumer = threading.Thread(
        target=worker.run,
        args=(DESTINATION, ward.settings),
        kwargs={"until_caught_up": False, "stop": stop},
    )
    with watchdog.beside("kigali", ward.settings, stop):
        consumer.start()
        try:
            yield
        finally:
            stop.set()
            consumer.join(30)


@contextlib.contextmanager
def supervised(given: Settings) -> Iterator[list[str]]:
    """A reader that is started again whenever it stops, as a service is. What it stopped with is
    listed.
    """
    stop, causes = threading.Event(), list[str]()

    def run() -> None:
        while not stop.is_set():
            try:
                reader.run("kigali", given, until_caught_up=False, stop=stop)
            except Fatal as error:
                causes.append(error.reason)
                stop.wait(0.5)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield causes
    finally:
        stop.set()
        thread.join(30)


@pytest.fixture
def ward(own_mariadb: Callable[..., MariaDB], kafka_bootstrap: str, tmp_path: Path) -> Ward:
    return made(own_mariadb(), kafka_bootstrap, tmp_path)


def made(server: MariaDB | MySQL, bootstrap: str, folder: Path) -> Ward:
    hospital(server, patients=5)
    ward = Ward(server, bootstrap, folder / "out")
    reader.run("kigali", ward.settings, until_caught_up=True, stop=threading.Event())
    assert saved(ward.settings).capture == "binlog"
    return ward


def is_polled(ward: Ward) -> Callable[[], bool]:
    return lambda: saved(ward.settings).capture == "polling"


def is_streamed(ward: Ward, after: int) -> Callable[[], bool]:
    def streamed() -> bool:
        found = saved(ward.settings)
        return found.capture == "binlog" and found.epoch > after

    return streamed


@pytest.mark.long
def test_binlog_off_and_on_again(ward: Ward) -> None:
    first = saved(ward.settings).epoch
    with beside(ward), supervised(ward.settings) as causes:
        ward.server.flags = ("--skip-log-bin",)
        ward.server.restart()
        ward.work()
        eventually(is_polled(ward), "the hospital is polled", WITHIN_S)
        second = saved(ward.settings).epoch
        assert second > first
        assert any("writes no binlog" in cause for cause in causes), causes
        assert ward.state == "polled instead of streaming"
        ward.work()
        ward.wait_equal()
        ward.server.flags = ()
        ward.server.restart()
        ward.work()
        eventually(is_streamed(ward, second), "the hospital is streamed again", WITHIN_S)
        ward.work()
        ward.wait_equal()
        assert ward.state in ("streaming", "snapshot")
        assert saved(ward.settings).epoch > second, "the stream goes on in its own epoch"


def test_grant_gone_and_given_again(ward: Ward) -> None:
    ((account, host),) = ward.server.execute("SELECT User, Host FROM mysql.user WHERE User = 'cdc'")
    names = ("REPLICATION SLAVE", "BINLOG MONITOR")
    with beside(ward), supervised(ward.settings) as causes:
        ward.server.execute(*(f"REVOKE {name} ON *.* FROM '{account}'@'{host}'" for name in names))
        for (number,) in ward.server.execute(
            "SELECT ID FROM information_schema.PROCESSLIST WHERE USER = 'cdc'"
        ):
            with contextlib.suppress(Exception):
                ward.server.execute(f"KILL {number}")
        ward.work()
        eventually(is_polled(ward), "the hospital is polled", WITHIN_S)
        second = saved(ward.settings).epoch
        assert any("grant" in cause for cause in causes), causes
        ward.work()
        ward.wait_equal()
        ward.server.execute(*(f"GRANT {name} ON *.* TO '{account}'@'{host}'" for name in names))
        ward.work()
        eventually(is_streamed(ward, second), "the hospital is streamed again", WITHIN_S)
        ward.wait_equal()


@pytest.mark.long
def test_a_frozen_reader_comes_back_in_a_new_epoch(ward: Ward, tmp_path: Path) -> None:
    process = reader_process.spawn(ward.settings, tmp_path)
    try:
        with beside(ward):
            ward.work(1)
            eventually(
                lambda: (
                    '"reading the binlog"' in log(tmp_path) or "reading the binlog" in log(tmp_path)
                ),
                "the reader reads the binlog",
            )
            process.send_signal(signal.SIGSTOP)
            ward.work()
            eventually(is_polled(ward), "the hospital is polled", WITHIN_S)
            second = saved(ward.settings).epoch
            ward.work()
            ward.wait_equal()
            process.send_signal(signal.SIGCONT)
            ward.work()
            eventually(is_streamed(ward, second), "the hospital is streamed again", WITHIN_S)
            ward.work()
            ward.wait_equal()
            assert process.poll() is None, "the same process reads"
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(30)


def log(folder: Path) -> str:
    return (folder / "reader.log").read_text()


def test_a_stream_that_is_not_silent_is_left_alone(ward: Ward) -> None:
    with beside(ward), supervised(ward.settings):
        epoch = saved(ward.settings).epoch
        time.sleep(3 * SILENCE_S)
        assert saved(ward.settings).epoch == epoch
        assert saved(ward.settings).capture == "binlog"


def test_nobody_polls_beside_a_reader_that_holds_the_lease(ward: Ward) -> None:
    """Alive, and yet silent: it has the hospital to itself."""
    quiet = ward.settings.model_copy(
        update={"cdc": ward.settings.cdc.model_copy(update={"heartbeat_s": 600.0})}
    )
    stop = threading.Event()
    thread = threading.Thread(
        target=reader.run, args=("kigali", quiet), kwargs={"until_caught_up": False, "stop": stop}
    )
    thread.start()
    try:
        with watchdog.beside("kigali", ward.settings, stop):
            time.sleep(4 * SILENCE_S)
            assert saved(ward.settings).capture == "binlog"
    finally:
        stop.set()
        thread.join(30)


def test_a15_a_reader_that_was_silent_and_lives_is_watched_again(ward: Ward) -> None:
    """The watchdog sees a silence while the reader holds its lease. The stream goes on by itself,
    and the watchdog must not take it for polled, or poll beside the next reader.
    """
    quiet = ward.settings.model_copy(
        update={"cdc": ward.settings.cdc.model_copy(update={"heartbeat_s": 600.0})}
    )
    epoch = saved(ward.settings).epoch

    def is_polled_instead() -> float | None:
        return REGISTRY.get_sample_value(
            "passport_reconcile_polled_instead", {"hospital": "kigali"}
        )

    stop = threading.Event()
    with capture_logs() as logs, watchdog.beside("kigali", ward.settings, stop):
        with reader_process.running(quiet):
            eventually(
                lambda: any(line["event"].startswith("the stream is silent") for line in logs),
                "the watchdog has seen a silence",
            )
            assert not is_polled_instead(), "the reader has the hospital to itself"
            ward.work()
        assert saved(ward.settings).epoch == epoch, "the stream went on in its epoch"
        # Nobody reads any more: that silence the watchdog sees, too.
        eventually(is_polled(ward), "the hospital is polled", WITHIN_S)
        assert is_polled_instead() == 1
    assert is_polled_instead() == 0
