"""`tillgate config`: what is shown, how faults are named, and that the example is a file a gateway takes."""

import json
import re
from pathlib import Path

import jsonschema
import pytest
from cli_world import tillgate

from gateway.config import SETTINGS


def test_every_value_is_shown_with_its_origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text("drain_seconds = 5\n\n[server]\n# a comment\nport = 8443\n")
    monkeypatch.setenv("TILLGATE_METRICS__PORT", "9200")
    rows = {row["setting"]: row for row in tillgate("config", "show", "--config", file, "--json").json}
    assert rows.keys() == SETTINGS.keys()
    assert (rows["server.port"]["value"], rows["server.port"]["from"]) == (8443, f"{file}, line 5")
    assert (rows["metrics.port"]["value"], rows["metrics.port"]["from"]) == (9200, "TILLGATE_METRICS__PORT")
    assert rows["server.host"]["from"] == "default"


def test_every_fault_is_named_with_its_line_and_the_fix(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text('drain_seconds = 3\n[server]\nprot = 80\n\n[metrics]\nport = "x"\n')
    told = tillgate("config", "check", "--config", file)
    assert told.code == 2
    assert f"server.prot (from {file}, line 3): there is no such setting. Did you mean server.port?" in told.err
    assert f"metrics.port (from {file}, line 6): 'x' is not a port number" in told.err


def test_a_good_file_is_said_to_be_good(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text("[server]\nport = 8443\n")
    assert tillgate("config", "check", "--config", file, "--json").json["set"] == 1


def test_the_example_is_a_file_that_changes_nothing_and_names_everything(tmp_path: Path) -> None:
    text = tillgate("config", "example").out
    file = tmp_path / "gateway.toml"
    file.write_text(text)
    assert tillgate("config", "check", "--config", file, "--json").json["set"] == 0
    assert all(f"# {key}: " in text for key in SETTINGS)
    file.write_text(re.sub(r"^# (\w+ = )", r"\1", text, flags=re.MULTILINE))
    rows = tillgate("config", "show", "--config", file, "--json").json
    assert all(row["from"] != "default" for row in rows), "every line of it is one a gateway takes"


def test_the_schema_is_one_and_refuses_what_the_gateway_refuses() -> None:
    schema = json.loads(tillgate("config", "schema").out)
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    assert validator.is_valid({"server": {"port": 8443}})
    assert not validator.is_valid({"server": {"port": 99999}})
