"""Settings: four places, one result, every problem at once, no secret shown."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from cli.context import CommandContext
from passport import configuration
from passport.configuration import load, without_secrets
from passport.errors import BadSettings
from passport.settings import Destination, Hospital, Settings

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "config" / "local.example.yaml"


def settings_file(folder: Path, **changes: Any) -> Path:
    tree = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    for path, value in changes.items():
        branch = tree
        *steps, leaf = path.split("__")
        for step in steps:
            branch = branch[step]
        branch[leaf] = value
    file = folder / "local.yaml"
    file.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    return file


def test_the_example_is_valid() -> None:
    settings, unknown = load(EXAMPLE, environ={})
    assert settings.hospitals["kigali"].mysql.port == 3306
    assert settings.kafka.topic == "openmrs.changes"
    assert unknown == []


def test_secret_files_lie_over_the_file_and_variables_over_both(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "passport_hospitals__kigali__mysql__password").write_text("from-file\n")
    (secrets / "PASSPORT_HOSPITALS__KIGALI__MYSQL__USER").write_text("reader\n")
    file = settings_file(tmp_path, hospitals__kigali__mysql__password="from-yaml")
    settings, _ = load(file, environ={}, secrets=secrets)
    assert settings.hospitals["kigali"].mysql.password.get_secret_value() == "from-file"
    settings, _ = load(
        file, environ={"PASSPORT_HOSPITALS__KIGALI__MYSQL__PASSWORD": "12345"}, secrets=secrets
    )
    mysql = settings.hospitals["kigali"].mysql
    assert (mysql.user, mysql.password.get_secret_value()) == ("reader", "12345")


def test_a_variable_finds_an_id_with_a_dash(tmp_path: Path) -> None:
    tree = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    tree["hospitals"]["kigali-north"] = tree["hospitals"].pop("kigali")
    file = tmp_path / "local.yaml"
    file.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    settings, _ = load(file, environ={"PASSPORT_HOSPITALS__KIGALI_NORTH__MYSQL__PORT": "3399"})
    assert settings.hospitals["kigali-north"].mysql.port == 3399


def test_all_problems_are_named_at_once_and_no_value(tmp_path: Path) -> None:
    file = settings_file(
        tmp_path,
        hospitals__kigali__timezone="Kigali",
        hospitals__kigali__mysql__port="canary-port",
        hospitals__kigali__capture="canary-capture",
        destinations__passport__colour="canary-colour",
    )
    with pytest.raises(BadSettings) as raised:
        load(file, environ={"PASSPORT_KAFKA__TOPICS": "canary-topic"})
    text = str(raised.value)
    for name in (
        "hospitals.kigali.timezone",
        "hospitals.kigali.mysql.port",
        "hospitals.kigali.capture",
        "destinations.passport.colour",
        "kafka.topics",
    ):
        assert name in text
    assert "canary" not in text
    assert "Africa/Kigali" in text


def test_unknown_variables_are_reported(tmp_path: Path) -> None:
    _, unknown = load(
        settings_file(tmp_path), environ={"PASSPORT_HOSPITAL": "x", "PASSPORT_CONFIG": "y"}
    )
    assert unknown == ["PASSPORT_HOSPITAL"]


@pytest.mark.parametrize(
    ("text", "said"),
    [("a: [", "is not YAML at line"), ("- a", "not a mapping"), (None, "does not exist")],
)
def test_an_unreadable_file_is_named(tmp_path: Path, text: str | None, said: str) -> None:
    file = tmp_path / "local.yaml"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    with pytest.raises(BadSettings, match=said) as raised:
        load(file, environ={})
    assert str(file) in str(raised.value)


def test_two_hospitals_can_not_share_a_partition(tmp_path: Path) -> None:
    tree = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    tree["hospitals"]["huye"] = tree["hospitals"]["kigali"]
    file = tmp_path / "local.yaml"
    file.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    with pytest.raises(BadSettings, match="already that of kigali"):
        load(file, environ={})


def test_secrets_are_never_shown(tmp_path: Path) -> None:
    file = settings_file(
        tmp_path,
        hospitals__kigali__mysql__password="canary-password",
        destinations__passport__options__link_key="canary-key",
        destinations__passport__options__uri="mongodb://user:canary-uri@host/",
    )
    settings, _ = load(file, environ={})
    assert "canary" not in str(without_secrets(settings))
    assert "canary" not in repr(settings.hospitals)


def every_field(model: type[BaseModel]) -> set[str]:
    names: set[str] = set()
    for name, field in model.model_fields.items():
        names.add(name)
        for kind in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                names |= every_field(kind)
    return names


def test_every_setting_is_in_the_commented_files() -> None:
    written = (configuration.packaged("default.yaml").read_text() + EXAMPLE.read_text()).split()
    for name in every_field(Settings) | every_field(Hospital) | every_field(Destination):
        assert f"{name}:" in written, name


def test_what_looks_at_the_passport_finds_it_beside_other_destinations() -> None:
    context = CommandContext(EXAMPLE)
    assert context.destination(None, "mongo")[0] == "passport"
    assert context.destination("lines", "mongo")[0] == "lines"
    with pytest.raises(BadSettings, match="which destination"):
        context.destination(None)
