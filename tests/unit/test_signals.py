"""What operators ask for: which signal holds, and what is no signal."""

import pytest
import typer

from cdc.positions import HospitalRecords, Saved, Snapshot
from cdc.signals import Signal, Signals, new_key
from cli.signal import signal_for
from passport.errors import Fatal, NotReady
from passport.settings import LoadBudget
from passport.version import Position

SAVED = Saved(
    "kigali", 3, "mariadb-7", 1, 5, Position("binlog.000002", 100), snapshot=Snapshot(2, "running")
)


def signals(*asked: Signal) -> Signals:
    """Return what a hospital's records come to, as they go through the topic."""
    records = HospitalRecords("kigali")
    for signal in asked:
        records.add(new_key("kigali", signal.at_ms), signal.encode("kigali", 3))
    assert records.furthest() is None
    return records.signals


def asked(action: str, at_ms: int = 1) -> Signal:
    return Signal(action, at_ms, "me@here")


def test_of_pause_and_resume_the_last_one_holds_whatever_the_clocks_say() -> None:
    assert signals().pause is None
    assert signals(asked("pause")).pause == asked("pause")
    assert signals(asked("pause", 9), asked("resume", 1)).pause is None
    assert signals(asked("resume", 9), asked("pause", 1)).pause is not None


def test_the_budget_is_that_of_the_settings_unless_another_was_asked_for() -> None:
    budget = LoadBudget()
    slow = signal_for("kigali", "budget=7", None)
    default = signal_for("kigali", "budget=default", None)
    assert signals().budget(budget) == budget
    assert signals(slow).budget(budget) == budget.model_copy(update={"rows_per_s": 7})
    assert signals(slow, default).budget(budget) == budget
    assert [signal.describe() for signal in signals(slow, default)] == [
        "budget=7",
        "budget=default",
    ]


def test_a_snapshot_is_meant_in_its_epoch_alone() -> None:
    snapshot = signal_for("kigali", "snapshot", SAVED)
    stop = signal_for("kigali", "stop-snapshot", SAVED)
    both = signals(snapshot, stop)
    assert snapshot.number > 2 + 1
    assert both.snapshot(5) == snapshot
    assert both.snapshot(6) is None
    assert both.stop(5, 2) == stop
    assert both.stop(5, 3) is None
    assert both.stop(6, 2) is None


@pytest.mark.parametrize(
    "action", ["", "stop", "budget", "budget=", "budget=0", "budget=-1", "budget=1.5", "pause=1"]
)
def test_what_is_no_signal_is_refused(action: str) -> None:
    with pytest.raises(typer.BadParameter):
        signal_for("kigali", action, SAVED)


def test_a_signal_that_means_nothing_is_refused() -> None:
    for action in ("snapshot", "stop-snapshot"):
        with pytest.raises(NotReady, match="never run"):
            signal_for("kigali", action, None)
    done = Saved("kigali", 3, "", 1, 5, SAVED.position, snapshot=Snapshot(2, "done"))
    with pytest.raises(Fatal, match="no snapshot is running"):
        signal_for("kigali", "stop-snapshot", done)
