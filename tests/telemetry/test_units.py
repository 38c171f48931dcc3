"""The units: systemd finds nothing to say about them, and the service of the machine is shut off from it."""

import configparser
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "systemd"
SYSTEM, USER = UNITS / "idlepush.service", UNITS / "user" / "idlepush.service"
SYSTEMD = Path("/usr/lib/systemd/system")


@pytest.fixture(scope="module", autouse=True)
def analyze() -> None:
    """Skip where there is no systemd; in CI nothing may be missing unnoticed."""
    if shutil.which("systemd-analyze") is None or not SYSTEMD.is_dir():
        lack = "systemd-analyze is missing: apt-get install systemd"
        if os.environ.get("CI") == "true":
            pytest.fail(lack, pytrace=False)
        pytest.skip(lack)


def ask(*arguments: str, environment: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Run systemd-analyze; return its status, and all that it prints."""
    done = subprocess.run(
        ["systemd-analyze", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **(environment or {}), "LC_ALL": "C.UTF-8", "SYSTEMD_PAGER": ""},
    )
    return done.returncode, done.stdout


def values(unit: Path, key: str) -> list[str]:
    """Return what the unit's [Service] says of *key*."""
    return [line.partition("=")[2] for line in unit.read_text().splitlines() if line.startswith(f"{key}=")]


def install(program: Path) -> None:
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)


def test_verify_has_nothing_to_say_of_the_systems_unit(tmp_path: Path) -> None:
    shutil.copytree(SYSTEMD, tmp_path / "usr/lib/systemd/system", symlinks=True)
    for command in values(SYSTEM, "ExecStart") + values(SYSTEM, "ExecReload"):
        install(tmp_path / command.split()[0].lstrip("/"))
    shutil.copy(SYSTEM, tmp_path / "usr/lib/systemd/system")
    assert ask("verify", f"--root={tmp_path}", "idlepush.service") == (0, "")


def test_verify_has_nothing_to_say_of_the_users_unit(tmp_path: Path) -> None:
    install(tmp_path / values(USER, "ExecStart")[0].split()[0].removeprefix("%h/"))
    environment = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    assert ask("verify", "--user", str(USER), environment=environment) == (0, "")


def test_verify_would_say_what_is_wrong(tmp_path: Path) -> None:
    """The two tests above can fail."""
    broken = tmp_path / "broken.service"
    broken.write_text(SYSTEM.read_text().replace("WatchdogSec", "WatchDogSec"))
    status, said = ask("verify", str(broken))
    assert "WatchDogSec" in said
    assert status != 0 or said


def test_the_exposure_of_the_systems_unit_is_at_most_15() -> None:
    status, said = ask("security", "--offline=true", "--threshold=15", str(SYSTEM))
    assert status == 0, said


@pytest.mark.parametrize("unit", [SYSTEM, USER], ids=["system", "user"])
def test_a_unit_says_what_the_service_relies_on(unit: Path) -> None:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[method-assign,assignment] # systemd's keys are spelled as they are
    parser.read_string(unit.read_text())
    service = parser["Service"]
    assert service["Type"] == "notify"
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert int(service["WatchdogSec"]) == 30
    assert int(service["TimeoutStopSec"]) > 10, "the end takes at most 10 seconds"
    assert service["RestartPreventExitStatus"] == "2", "a wrong configuration is not tried again"
    assert service["LimitCORE"] == "0"
    assert service["UMask"] == "0077"


def test_the_systems_unit_keeps_secrets_and_state_where_only_the_service_comes() -> None:
    assert values(SYSTEM, "DynamicUser") == ["yes"]
    assert values(SYSTEM, "StateDirectory") == ["idlepush"]
    assert values(SYSTEM, "StateDirectoryMode") == ["0700"]
    assert values(SYSTEM, "LoadCredential") == ["api-token"]
