"""A HAPI FHIR JPA server (R4), from its jars, with a database of its own."""

import subprocess
from http.client import HTTPException
from pathlib import Path
from urllib.request import urlopen

from dev.stack import install, ports
from dev.stack.server import Server

_SMALL = ("-Xms256m", "-Xmx768m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
_LOGGING = """\
<configuration>
  <appender name="out" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%d %p %m \\(%c\\)%n</pattern></encoder>
  </appender>
  <root level="WARN"><appender-ref ref="out"/></root>
</configuration>
"""


class Fhir(Server):
    """A FHIR server. What it holds is in `folder`."""

    @property
    def url(self) -> str:
        """The base of all its addresses."""
        return f"http://127.0.0.1:{self.port}/fhir"

    def prepare(self) -> None:
        _classes()

    def command(self) -> list[str]:
        (self.folder / "logback.xml").write_text(_LOGGING)
        logging = f"-Dlogback.configurationFile={self.folder}/logback.xml"
        path = f"{_classes()}:{install.fhir_jars()}/*"
        return [str(install.java()), "-cp", path, *_SMALL, logging, "FhirServer", str(self.port)]

    def answers(self) -> bool:
        if ports.is_free(self.port):
            return False
        count = f"{self.url}/Observation?_summary=count"
        try:
            with urlopen(count, timeout=30) as answer:  # noqa: S310  # our own
                return bool(answer.status == 200)
        except (OSError, HTTPException):
            return False


def _classes() -> Path:
    """Return the folder of the server's main class, compiled."""
    return install.once(f"fhir-classes-{install.HAPI_VERSION}", _compile)


def _compile(folder: Path) -> None:
    jars = f"{install.fhir_jars()}/*"
    source = Path(__file__).with_name("FhirServer.java")
    options = ["-nowarn", "-proc:none", "-cp", jars, "-d", str(folder)]
    command = [str(install.javac()), *options, str(source)]
    subprocess.run(command, check=True, capture_output=True)
