"""The command line by itself: help, mistakes, exit statuses, and what is printed of a configuration."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from idlepush.cli import COMMANDS

ACCOUNT = (
    '[accounts.alice]\nhost = "127.0.0.1"\nport = 1\ntls = "none"\nusername = "alice"\npassword = "s3cret-canary"\n'
)


def idlepush(
    *arguments: str, folder: Path | None = None, stdin: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "IDLEPUSH_", "STATE_"))}
    return subprocess.run(
        [sys.executable, "-m", "idlepush", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        timeout=60,
        input=stdin,
        env={**kept, "COLUMNS": "120", **environment},
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A configuration with one account, whose service does not run."""
    config = tmp_path / "idlepush.toml"
    config.write_text(f'[store]\nurl = "sqlite:///mirror.db"\n[http]\nlisten = "unix:http.sock"\n{ACCOUNT}')
    config.chmod(0o600)
    return tmp_path


def test_the_version_is_printed() -> None:
    done = idlepush("--version")
    assert (done.returncode, done.stdout.split()[0]) == (0, "idlepush")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_teaches_by_example(command: str) -> None:
    done = idlepush(command, "--help")
    assert done.returncode == 0
    assert "Example" in done.stdout and f"idlepush {command}" in done.stdout


@pytest.mark.parametrize("order", ["list", "add", "remove", "pause", "resume", "wake"])
def test_every_order_to_an_account_teaches_by_example(order: str) -> None:
    assert f"idlepush account {order}" in idlepush("account", order, "--help").stdout


def test_help_lists_every_command_without_importing_one() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "idlepush", "--help"], capture_output=True, text=True, check=True
    )
    for command, (_, line) in COMMANDS.items():
        assert command in done.stdout and line.split()[-1] in done.stdout
    for heavy in ("fastapi", "uvicorn", "aioimaplib", "apprise", "idlepush.engine", "idlepush.config", "sqlite3"):
        assert heavy not in done.stderr, heavy


def test_a_listing_does_not_import_the_service(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "idlepush", "messages", "alice"],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )
    for heavy in ("fastapi", "uvicorn", "aioimaplib", "apprise", "structlog", "prometheus_client", "rich.table"):
        assert f" {heavy}" not in done.stderr, heavy


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["mesages", "alice"], "Did you mean 'messages'?"),
        (["messages"], "ACCOUNT"),
        (["messages", "alice", "--limit", "0"], "limit"),
        (["messages", "alice", "--search", "before:soon"], "write it as before:2026-01-31"),
        (["messages", "alice", "--search", "a", "--expunged"], "only live messages are searched"),
        (["raw", "alice", "INBOX", "nought"], "uid"),
        (["demo", "--for", "soon"], "--for"),
        (["status", "--nonsense"], "--nonsense"),
        (["status", "-c", "nowhere.toml"], "nowhere.toml: cannot be read: no such file or directory"),
    ],
)
def test_a_wrong_command_line_or_configuration_exits_with_2_and_the_reason_last(
    folder: Path, arguments: list[str], reason: str
) -> None:
    done = idlepush(*arguments, folder=folder)
    assert done.returncode == 2
    assert done.stdout == ""
    assert reason.casefold() in done.stderr.strip().splitlines()[-1].casefold()


def test_without_a_configuration_it_exits_with_2_and_says_where_it_looked(tmp_path: Path) -> None:
    done = idlepush("status", folder=tmp_path, HOME=str(tmp_path))
    assert done.returncode == 2
    assert "no configuration: looked for idlepush.toml" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["messages", "alice"], "mirror.db"),
        (["account", "pause", "nobody"], "there is no account 'nobody'; configured are: alice"),
        (["account", "pause", "alice"], "start one with: idlepush run"),
        (["account", "remove", "nobody"], "there is no account 'nobody'"),
        (["account", "remove", "alice"], "take it out of the file that it stands in"),
        (["check", "nobody"], "there is no account 'nobody'"),
        (["top"], "top needs a terminal"),
    ],
)
def test_all_else_exits_with_1_and_the_reason_last(folder: Path, arguments: list[str], reason: str) -> None:
    done = idlepush(*arguments, folder=folder)
    assert done.returncode == 1
    assert reason in done.stderr.strip().splitlines()[-1]


def test_where_nothing_ever_ran_status_and_health_say_so(folder: Path) -> None:
    done = idlepush("status", "--json", folder=folder)
    assert done.returncode == 0
    line = json.loads(done.stdout)
    assert (line["account"], line["state"], line["running"], line["messages"]) == ("alice", "starting", False, 0)
    assert json.loads(idlepush("health", "--json", folder=folder).stdout)["reasons"] == ["it has not run yet"]
    assert "No service answers" in idlepush("status", folder=folder).stdout


def test_something_else_at_the_address_is_told_from_the_service(folder: Path) -> None:
    config = folder / "idlepush.toml"
    script = "import http.server as h; s = h.HTTPServer(('127.0.0.1', 0), h.BaseHTTPRequestHandler)\n"
    script += "print(s.server_port, flush=True); s.serve_forever()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as other:
        assert other.stdout is not None
        config.write_text(config.read_text().replace("unix:http.sock", f"127.0.0.1:{other.stdout.readline().strip()}"))
        done = idlepush("status", folder=folder)
        other.kill()
    assert done.returncode == 1
    assert "is no idlepush" in done.stderr


# The configuration


def test_config_show_is_toml_without_a_secret(folder: Path) -> None:
    done = idlepush("config", "show", folder=folder)
    assert done.returncode == 0
    shown = tomllib.loads(done.stdout)
    assert shown["accounts"]["alice"]["password"] == "***"
    assert shown["store"]["url"] == f"sqlite:///{folder}/mirror.db"
    assert "s3cret" not in done.stdout


def test_config_schema_is_a_schema_of_every_table() -> None:
    schema = json.loads(idlepush("config", "schema").stdout)
    assert schema["$schema"].endswith("2020-12/schema")
    assert schema["properties"].keys() >= {"store", "http", "alerts", "limits", "metrics", "defaults", "accounts"}


# Accounts


def added(folder: Path, name: str = "bob") -> Path:
    return folder / "accounts.d" / f"{name}.toml"


BOB = ["account", "add", "bob", "--host", "imap.example.org", "--username", "bob@example.org"]


def test_an_account_is_added_in_a_file_of_its_own_that_others_cannot_read(folder: Path) -> None:
    done = idlepush(*BOB, "--password-file", "bob.secret", "-m", "INBOX", "-m", 'Tricky "name"', folder=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("wrote accounts.d/bob.toml")
    assert added(folder).stat().st_mode & 0o777 == 0o600
    shown = idlepush("config", "show", folder=folder).stdout
    assert f'password = {{ file = "{folder}/bob.secret" }}' in shown
    assert 'mailboxes = ["INBOX", "Tricky \\"name\\""]' in shown
    listed = [json.loads(line) for line in idlepush("account", "list", "--json", folder=folder).stdout.splitlines()]
    assert [(one["account"], one["host"], one["enabled"]) for one in listed] == [
        ("alice", "127.0.0.1", True),
        ("bob", "imap.example.org", True),
    ]


def test_a_password_from_stdin_is_kept_in_the_file_and_printed_nowhere(folder: Path) -> None:
    done = idlepush(*BOB, "--password-stdin", folder=folder, stdin='hush "canary"\n')
    assert done.returncode == 0
    assert "canary" not in done.stdout + done.stderr
    assert 'password = "hush \\"canary\\""' in added(folder).read_text()


def test_each_place_of_a_password_can_be_given(folder: Path) -> None:
    for number, (option, value, spelled) in enumerate(
        [
            ("--password-env", "BOB", '{ env = "BOB" }'),
            ("--password-command", "pass 'mail/bob s'", '{ command = ["pass", "mail/bob s"] }'),
            ("--password-credential", "bob", '{ credential = "bob" }'),
            ("--password-keyring", "mail/bob", '{ keyring = "mail/bob" }'),
        ]
    ):
        name = f"bob{number}"
        done = idlepush(*BOB[:2], name, *BOB[3:], option, value, folder=folder)
        assert done.returncode == 0, done.stderr
        assert f"password = {spelled}" in added(folder, name).read_text()


@pytest.mark.parametrize(
    ("more", "status", "reason"),
    [
        (["--password-env", "A", "--password-file", "b"], 2, "one place"),
        ([], 2, "--password-file"),
        (["--password-env", "A", "--port", "0"], 2, "port"),
        (["--password-env", "A", "--tls", "maybe"], 2, "implicit"),
        (["--password-env", "A", "--tls", "none"], 2, "unprotected"),
    ],
)
def test_what_makes_no_account_is_not_written(folder: Path, more: list[str], status: int, reason: str) -> None:
    done = idlepush(*BOB, *more, folder=folder)
    assert done.returncode == status
    assert reason in done.stderr.strip().splitlines()[-1]
    assert not added(folder).exists()


@pytest.mark.parametrize("name", ["../evil", "a/b", ".hidden", "-x", "", "a b"])
def test_a_name_that_is_none_writes_nothing(folder: Path, name: str) -> None:
    arguments = [*BOB[:2], *BOB[3:], "--password-env", "A", "--", name]
    assert idlepush(*arguments, folder=folder).returncode == 2
    assert not list(folder.rglob("*evil*")) and not list((folder / "accounts.d").glob("*"))


def test_an_account_that_is_there_is_not_overwritten(folder: Path) -> None:
    assert "already" in idlepush(*BOB[:2], "alice", *BOB[3:], "--password-env", "A", folder=folder).stderr
    added(folder).parent.mkdir()
    added(folder).write_text("broken = [")
    done = idlepush(*BOB, "--password-env", "A", folder=folder)
    assert done.returncode == 1
    assert "there is a file" in done.stderr
    assert added(folder).read_text() == "broken = ["


def test_remove_deletes_the_file_and_no_other_account(folder: Path) -> None:
    idlepush(*BOB, "--password-env", "A", folder=folder)
    done = idlepush("account", "remove", "bob", folder=folder)
    assert done.returncode == 0
    assert not added(folder).exists()
    added(folder).write_text(ACCOUNT.replace("alice", "bob") + ACCOUNT.replace("alice", "carol"))
    added(folder).chmod(0o600)
    done = idlepush("account", "remove", "bob", folder=folder)
    assert done.returncode == 1
    assert "defines other accounts" in done.stderr
    assert added(folder).exists()


@pytest.mark.parametrize(
    ("words", "offered"),
    [("idlepush me", "messages"), ("idlepush account pa", "pause"), ("idlepush status --js", "--json")],
)
def test_the_shell_completes_commands_orders_and_options(words: str, offered: str) -> None:
    done = idlepush(_IDLEPUSH_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS=words)
    assert offered in done.stdout
