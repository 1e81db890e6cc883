"""What operators ask for: which signal holds, and what is no signal."""

from dataclasses import replace

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


UUID = "3e11fa47-71ca-11e1-9e33-c80aa9429562"


@pytest.mark.parametrize(
    ("server", "executed", "typed", "gtid"),
    [
        ("mariadb-7", "0-7-41", "0-7-42", "0-7-42"),
        ("mariadb-7", "0-7-41", " 0-7-0042 ", "0-7-42"),
        ("mariadb-7", "0-7-41", "1-7-5", "1-7-5"),
        (UUID, f"{UUID}:1-41", f"{UUID}:42", f"{UUID}:42"),
        (UUID, f"{UUID}:1-41", f"{UUID.upper()}:42", f"{UUID}:42"),
        (UUID, f"{UUID}:1-41", f"{UUID}:Nightly:3", f"{UUID}:nightly:3"),
        (UUID, f"{UUID}:1-41:43", f"{UUID}:42", f"{UUID}:42"),
    ],
)
def test_a_transaction_to_skip_is_named_as_the_reader_meets_it(
    server: str, executed: str, typed: str, gtid: str
) -> None:
    saved = replace(SAVED, server=server, gtid_set=executed)
    signal = signal_for("kigali", "skip-transaction", saved, typed)
    assert signal.describe() == f"skip-transaction {gtid}"
    asked_for = signals(signal)
    assert asked_for.skipped(5) == {gtid: signal}
    assert asked_for.skipped(6) == {}, "after a RESET MASTER another one may have this GTID"


@pytest.mark.parametrize("typed", ["", "42", "0-7", f"{UUID}:1-5", f"{UUID}:42", "0-7-42,1-7-5"])
def test_what_names_no_single_transaction_is_refused(typed: str) -> None:
    saved = replace(SAVED, gtid_set="0-7-41")
    with pytest.raises(typer.BadParameter, match="one transaction"):
        signal_for("kigali", "skip-transaction", saved, typed)
    with pytest.raises(typer.BadParameter, match="takes no transaction"):
        signal_for("kigali", "pause", saved, "0-7-42")


def test_a_transaction_that_can_not_be_met_is_not_skipped() -> None:
    with pytest.raises(Fatal, match="writes no GTIDs") as refused:
        signal_for("kigali", "skip-transaction", SAVED, "0-7-42")
    assert refused.value.hint.endswith("passport cdc run --hospital kigali --new-epoch")
    for server, executed, gtid in (
        ("mariadb-7", "0-7-42", "0-7-42"),
        (UUID, f"{UUID}:1-42", f"{UUID}:7"),
        (UUID, f"{UUID}:1-42:a:1-3", f"{UUID}:a:3"),
    ):
        saved = replace(SAVED, server=server, gtid_set=executed)
        with pytest.raises(Fatal, match="is past transaction"):
            signal_for("kigali", "skip-transaction", saved, gtid)


def test_skipped_rows_are_missing_until_a_later_snapshot_is_done() -> None:
    saved = replace(SAVED, gtid_set="0-7-41")
    asked_for = signals(signal_for("kigali", "skip-transaction", saved, "0-7-42"))
    for newest_done in ((4, 9), (5, 1), (5, 2)):
        assert asked_for.skipped_since(*newest_done) == ["0-7-42"]
    for newest_done in ((5, 3), (6, 1)):
        assert asked_for.skipped_since(*newest_done) == []


@pytest.mark.parametrize(
    "action", ["", "stop", "budget", "budget=", "budget=0", "budget=-1", "budget=1.5", "pause=1"]
)
def test_what_is_no_signal_is_refused(action: str) -> None:
    with pytest.raises(typer.BadParameter):
        signal_for("kigali", action, SAVED)


def test_a_polled_hospital_meets_no_transactions_and_begins_without_a_snapshot() -> None:
    polled = replace(SAVED, capture="polling", snapshot=None)
    for saved, capture, hint in (
        (None, "polling", "passport check --hospital kigali"),
        (polled, "polling", "passport check --hospital kigali"),
        (polled, "binlog", "passport cdc run --hospital kigali begins behind it, with a snapshot"),
    ):
        with pytest.raises(Fatal, match="polled") as refused:
            signal_for("kigali", "skip-transaction", saved, "0-7-42", capture=capture)
        assert refused.value.hint == hint
    with pytest.raises(NotReady) as never_run:
        signal_for("kigali", "snapshot", None, capture="polling")
    assert never_run.value.hint == "passport reconcile --hospital kigali"
    with pytest.raises(Fatal, match="no snapshot is running"):
        signal_for("kigali", "stop-snapshot", polled, capture="polling")
    snapshot = signal_for("kigali", "snapshot", polled, capture="polling")
    assert (snapshot.epoch, snapshot.number) == (5, 2)


def test_a_signal_that_means_nothing_is_refused() -> None:
    for action in ("snapshot", "stop-snapshot"):
        with pytest.raises(NotReady, match="never run"):
            signal_for("kigali", action, None)
    done = Saved("kigali", 3, "", 1, 5, SAVED.position, snapshot=Snapshot(2, "done"))
    with pytest.raises(Fatal, match="no snapshot is running"):
        signal_for("kigali", "stop-snapshot", done)
