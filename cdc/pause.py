"""A pause: an operator has asked, by `passport signal`, to leave a hospital alone."""

import threading
from contextlib import closing

import structlog

from cdc.signals import Signal, SignalWatch
from passport import health, metrics
from passport.errors import Fatal, Origin

# How often it is looked whether the pause still holds.
LOOK_S = 0.5

log = structlog.get_logger()


def wait_while_paused(
    hospital_id: str, part: str, pause: Signal, watch: SignalWatch, stop: threading.Event
) -> None:
    """Wait until an operator resumes, or `stop`. `part` is what works meanwhile, for `health`.

    Nothing of the hospital's server may be held. The watch is closed.
    """
    log.warning(
        "paused",
        hospital=hospital_id,
        reason=f"asked for by {pause.by}",
        hint=f"passport signal --hospital {hospital_id} resume",
    )
    metrics.CDC_PAUSED.labels(hospital_id).set(1)
    try:
        with closing(watch):
            while watch.look().pause is not None and not stop.is_set():
                health.working(part)
                stop.wait(LOOK_S)
    finally:
        metrics.CDC_PAUSED.labels(hospital_id).set(0)
    if not stop.is_set():
        log.info("no longer paused", hospital=hospital_id)


def paused(hospital_id: str, pause: Signal) -> Fatal:
    """Return the error for a job that is to come to an end, and is paused."""
    return Fatal(
        f"hospital {hospital_id}: {pause.by} has paused its reader",
        hint=f"passport signal --hospital {hospital_id} resume",
        origin=Origin.hospital(hospital_id),
    )
