"""What is under ops/ to install Tillgate with: units, compose file, Kubernetes manifests and the install script."""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from source_tree import ROOT

from gateway.config import ENVIRONMENT_PREFIX, FILE_VARIABLE, SETTINGS, variable_of

OPS = ROOT / "ops"
SYSTEMD, COMPOSE = OPS / "systemd", OPS / "compose" / "compose.yaml"
UNITS = sorted(path.name for path in SYSTEMD.glob("*.service"))
EXPOSED_MAX = 2.5  # of systemd's 10
KUBERNETES = "1.32"  # of the schemas that the manifests are held against
LAYERS = ("base", "overlays/scaled")
KNOWN_VARIABLES = {FILE_VARIABLE, *map(variable_of, SETTINGS)}

Tool = Callable[[str, str], Callable[..., "subprocess.CompletedProcess[str]"]]


@pytest.fixture(scope="module")
def kubernetes() -> Any:
    """Kubernetes' own schemas: an extra, because they are large."""
    return pytest.importorskip("kubernetes_validate", reason="not installed: pip install tillgate[ops]")


@pytest.fixture(scope="module")
def layers(tool: Tool) -> dict[str, list[dict[str, Any]]]:
    """Each layer's manifests, as they would be applied."""
    kubectl = tool("kubectl", "kubernetes-client")
    found = {}
    for layer in LAYERS:
        said = kubectl("kustomize", OPS / "kubernetes" / layer)
        assert said.returncode == 0, said.stderr
        found[layer] = list(yaml.safe_load_all(said.stdout))
    return found


# --- systemd ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_is_well_locked_in(tool: Tool, name: str) -> None:
    said = tool("systemd-analyze", "systemd")("security", "--offline=true", SYSTEMD / name)
    exposure = re.search(r"Overall exposure level for .*: ([0-9.]+)", said.stdout)
    assert exposure is not None, said.stdout + said.stderr
    assert float(exposure[1]) <= EXPOSED_MAX


@pytest.mark.parametrize("name", (*UNITS, "tillgate-backup.timer"))
def test_systemd_understands_every_line(tool: Tool, name: str) -> None:
    said = tool("systemd-analyze", "systemd")("verify", "--recursive-errors=no", SYSTEMD / name)
    faults = [line for line in said.stderr.splitlines() if "/opt/tillgate/bin" not in line]  # not installed here
    assert faults == []


@pytest.mark.parametrize("name", ("tillgate.service", "tillgate-terminal.service"))
def test_what_serves_is_started_again_however_often_it_ended(name: str) -> None:
    lines = (SYSTEMD / name).read_text().splitlines()
    assert {"Restart=always", "StartLimitIntervalSec=0"} <= set(lines), "systemd gives up after 5 starts in 10 s else"


def test_a_unit_with_a_typing_error_is_noticed(tool: Tool, tmp_path: Path) -> None:
    broken = tmp_path / "broken.service"
    broken.write_text((SYSTEMD / "tillgate.service").read_text().replace("WatchdogSec", "WatchdogSecs"))
    assert "WatchdogSecs" in tool("systemd-analyze", "systemd")("verify", broken).stderr


SYSTEM_SCREEN = """
import asyncio, pathlib, sys
from stream_world import site

async def main(directory):
    async with site(directory) as here:
        token = (directory / "secrets" / "admin.token").read_text().strip()
        url, headers = here.gateway.url, {"Authorization": f"Bearer {token}"}
        for path in (url + "/console/api/system", here.gateway.metrics_url, url + "/readyz"):
            async with here.session.get(path, headers=headers) as response:
                print(path, response.status)

asyncio.run(main(pathlib.Path(sys.argv[1])))
"""


def test_a_gateway_needs_no_more_of_proc_than_its_unit_shows(tmp_path: Path) -> None:
    assert "ProcSubset=pid" in (SYSTEMD / "tillgate.service").read_text()
    alone = ["unshare", "-mpf", "sh", "-c", 'mount -t proc -o subset=pid proc /proc && exec "$@"', "sh"]
    if subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("mounting another /proc needs root and Linux 5.8")
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    screen = [sys.executable, "-c", SYSTEM_SCREEN, tmp_path / "data"]
    said = subprocess.run([*alone, *screen], env=environ, capture_output=True, text=True)
    assert [line.split()[1] for line in said.stdout.splitlines()] == ["200"] * 3, said.stdout + said.stderr


# --- compose ----------------------------------------------------------------------------------------------------------


def test_the_compose_file_fits_its_schema() -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE]
    said = subprocess.run(check, capture_output=True, text=True)
    assert said.returncode == 0, said.stdout


def test_compose_publishes_on_loopback_only_and_mounts_what_exists() -> None:
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    for service in services.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert not source.startswith(".") or (COMPOSE.parent / source).exists(), source


def test_the_gateway_of_the_compose_file_has_time_to_leave() -> None:
    gateway = yaml.safe_load(COMPOSE.read_text())["services"]["gateway"]
    assert gateway["stop_grace_period"] == "60s"


def test_the_image_is_built_from_all_that_a_wheel_is_made_of() -> None:
    lines = (COMPOSE.parent / "Dockerfile").read_text().splitlines()
    words = [line.split() for line in lines if line.startswith("COPY ") and "--from" not in line]
    copied = {source for line in words for source in line[1:-1]}
    wheel = tomllib.loads((OPS.parent / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {*wheel["packages"], *wheel["shared-data"]}
    assert needed <= copied
    assert all((OPS.parent / path).exists() for path in copied)


# --- Kubernetes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", LAYERS)
def test_kubernetes_takes_every_manifest(kubernetes: Any, layers: dict[str, list[dict[str, Any]]], layer: str) -> None:
    assert layers[layer]
    for manifest in layers[layer]:
        kubernetes.validate(manifest, KUBERNETES, strict=True)


def test_a_misspelt_manifest_is_noticed(kubernetes: Any, layers: dict[str, list[dict[str, Any]]]) -> None:
    broken = next(one for one in layers["base"] if one["kind"] == "StatefulSet")
    broken = yaml.safe_load(yaml.safe_dump(broken).replace("readinessProbe", "readinesProbe"))
    with pytest.raises(kubernetes.ValidationError):
        kubernetes.validate(broken, KUBERNETES, strict=True)


@pytest.mark.parametrize("layer", LAYERS)
def test_pods_are_locked_in_and_have_time_to_leave(layers: dict[str, list[dict[str, Any]]], layer: str) -> None:
    (pod,) = [one["spec"]["template"]["spec"] for one in layers[layer] if one["kind"] == "StatefulSet"]
    assert pod["terminationGracePeriodSeconds"] == 60
    assert pod["enableServiceLinks"] is False, "its variables would be settings that do not exist"
    assert pod["securityContext"]["runAsNonRoot"]
    for container in [*pod["containers"], *pod["initContainers"]]:
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("layer", LAYERS)
def test_the_data_directory_is_one_that_its_user_owns_and_init_can_run_before_the_gateway(
    layers: dict[str, list[dict[str, Any]]], layer: str
) -> None:
    (pod,) = [one["spec"]["template"]["spec"] for one in layers[layer] if one["kind"] == "StatefulSet"]
    (waiting,), (gateway,) = pod["initContainers"], pod["containers"]
    for container in (waiting, gateway):
        (mounted,) = [one["mountPath"] for one in container["volumeMounts"] if one["name"] == "state"]
        (data,) = [one["value"] for one in container["env"] if one["name"] == "TILLGATE_DATA"]
        assert data.startswith(mounted + "/"), "a volume's root is root's own, and may hold lost+found"
        assert data in str(waiting["command"])
    assert pod["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch", "else codes.toml is opened to a group"


# --- settings and scripts ---------------------------------------------------------------------------------------------


def _variables(text: str) -> Iterator[str]:
    yield from re.findall(rf"\b{ENVIRONMENT_PREFIX}[A-Z_]+", text)


def test_every_setting_that_is_named_exists() -> None:
    named = {
        (path.name, variable)
        for path in [*SYSTEMD.iterdir(), *OPS.glob("compose/*"), *OPS.rglob("kubernetes/**/*.yaml")]
        if path.is_file()
        for variable in _variables(path.read_text())
    }
    assert named
    assert {(name, variable) for name, variable in named if variable not in KNOWN_VARIABLES} <= {
        ("gateway.yaml", "TILLGATE_PORT")  # in a comment on what must not be set
    }


@pytest.mark.parametrize("part", ("gateway", "terminal"))
def test_the_install_script_lays_down_what_it_names(part: str, tmp_path: Path) -> None:
    for _ in range(2):  # an upgrade is the same again
        subprocess.run(
            ["sh", OPS / "install.sh", part], env={"DESTDIR": str(tmp_path), "PATH": "/usr/bin:/bin"}, check=True
        )
    units = {path.name for path in (tmp_path / "etc/systemd/system").iterdir()}
    expected = {
        "gateway": {"tillgate.service", "tillgate-backup.service", "tillgate-backup.timer"},
        "terminal": {"tillgate-terminal.service"},
    }
    assert units == expected[part]
    assert (tmp_path / "usr/lib/sysusers.d/tillgate.conf").is_file()


@pytest.mark.parametrize(
    ("part", "written"),
    (
        ("gateway", {"/var/lib/tillgate", "/var/backups/tillgate"}),
        ("terminal", {"/var/lib/tillgate-terminal", "/etc/tillgate"}),
    ),
)
def test_directories_that_its_user_writes_to_before_the_first_start_are_made(
    part: str, written: set[str], tmp_path: Path
) -> None:
    environ = {"DESTDIR": str(tmp_path), "PATH": "/usr/bin:/bin"}
    subprocess.run(["sh", OPS / "install.sh", part], env=environ, check=True)
    made = [
        line.split() for file in tmp_path.glob("usr/lib/tmpfiles.d/*.conf") for line in file.read_text().splitlines()
    ]
    assert written == {
        path for kind, path, _, user, _ in (line for line in made if line[0] == "d") if user == "tillgate"
    }


def test_the_install_script_refuses_what_it_does_not_know() -> None:
    said = subprocess.run(["sh", OPS / "install.sh", "everything"], capture_output=True, text=True)
    assert said.returncode == 2
    assert "gateway|terminal" in said.stderr
