"""What a client says about what it sends stays out of our logs, however loud it is."""

import logging
from collections.abc import Iterator

import pytest
import structlog

from passport import log
from passport.settings import Logs

CANARY = "canary 1199080012345678"


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    levels = {name: logging.getLogger(name).level for name in log.LOUD}
    yield
    root.handlers = handlers
    root.setLevel(level)
    for name, one in levels.items():
        logging.getLogger(name).setLevel(one)
    structlog.reset_defaults()


@pytest.mark.parametrize("client", [*log.LOUD, "pymongo.command", "pymysql", "anything"])
@pytest.mark.parametrize("form", ["json", "console"])
def test_no_client_gets_a_word_in(
    capsys: pytest.CaptureFixture[str], client: str, form: str
) -> None:
    """Every logger on, at DEBUG; the control is the same logger with an ordinary handler."""
    log.configure(Logs(level="DEBUG", format=form))  # type: ignore[arg-type]
    logger = logging.getLogger(client)
    for name in ("", *log.LOUD, client):
        logging.getLogger(name).setLevel(logging.DEBUG)
    try:
        raise ValueError(CANARY)
    except ValueError:
        logger.debug("sent %s", CANARY, exc_info=True, extra={"documents": [CANARY]})
    said = capsys.readouterr().err
    assert "text withheld" in said
    assert CANARY not in said
    control = logging.StreamHandler()
    logger.addHandler(control)
    logger.debug("sent %s", CANARY)
    logger.removeHandler(control)
    assert CANARY in capsys.readouterr().err


def test_a_key_that_is_not_allowed_is_hidden(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(Logs(level="DEBUG", format="json"))
    structlog.get_logger().debug("row", identifier=CANARY, obs_id=CANARY, count=1)
    said = capsys.readouterr().err
    assert CANARY not in said
    assert '"hidden": 2' in said
