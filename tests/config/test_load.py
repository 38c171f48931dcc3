"""The configuration is found, read and resolved; each mistake in it is one sentence that says where and what to do."""

import json
import os
import re
import tomllib
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from idlepush.config import Config, find, json_schema, load, masked, service_environment
from idlepush.config.loading import SECTIONS, SYSTEM_PATH
from idlepush.engine.credentials import CommandSecret, FileSecret, PlainSecret
from idlepush.engine.settings import AccountSettings
from idlepush.errors import ConfigError

CANARY = "canary-7f3a"
ENVIRONMENT = {"HOME": "/home/alice"}
ALICE = f"""\
[accounts.alice]
host = "imap.example.org"
username = "alice"
password = "{CANARY}"
"""


def write(path: Path, text: str | bytes, mode: int = 0o600) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(mode)
    return path


def loaded(tmp_path: Path, text: str, environment: Mapping[str, str] = ENVIRONMENT, mode: int = 0o600) -> Config:
    return load(write(tmp_path / "idlepush.toml", text, mode), environment)


def refusal(tmp_path: Path, text: str | bytes, mode: int = 0o600) -> list[str]:
    """Return the sentences of a configuration that is refused, having seen that its traceback keeps the password."""
    file = write(tmp_path / "idlepush.toml", text, mode)
    with pytest.raises(ConfigError) as caught:
        load(file, ENVIRONMENT)
    assert caught.value.__context__ is None
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    return [sentence.removeprefix(f"{tmp_path}/") for sentence in str(caught.value).splitlines()]


# What is written, the line and the key of its mistake, and the words that help.
MISTAKES: list[tuple[str, int, str, str]] = [
    # unknown keys
    (ALICE.replace("password", "pasword"), 4, "accounts.alice.pasword", "unknown key; did you mean 'password'?"),
    (ALICE.replace("username", "user"), 3, "accounts.alice.user", "unknown key; did you mean 'username'?"),
    (ALICE.replace("host", "server"), 2, "accounts.alice.server", "unknown key; did you mean 'host'?"),
    (ALICE + "Poll-Interval = 1", 5, "accounts.alice.Poll-Interval", "did you mean 'poll_interval'?"),
    (ALICE + 'folders = ["INBOX"]', 5, "accounts.alice.folders", "did you mean 'mailboxes'?"),
    (ALICE + "ssl = true", 5, "accounts.alice.ssl", "did you mean 'tls'?"),
    (ALICE + "xyzzy = 1", 5, "accounts.alice.xyzzy", "the keys here are allow_plaintext, audit_interval, auth, "),
    (ALICE + "grace = 1", 5, "accounts.alice.grace", "unknown key here; it belongs in [alerts]"),
    (ALICE + 'name = "alice"', 5, "accounts.alice.name", "an account's name stands in its header"),
    (ALICE + '"a\\u001bb" = 1', 5, 'accounts.alice."a\\u001bb"', "unknown key"),
    (ALICE + "tls.mode = 1", 5, "accounts.alice.tls", 'expected "implicit", "starttls" or "none"'),
    ("[acounts.alice]\nhost = 1", 1, "acounts", "did you mean 'accounts'?"),
    ("[alice]\nhost = 1\nusername = 1", 1, "alice", "did you mean [accounts.alice]?"),
    ('host = "imap.example.org"', 1, "host", "it belongs in [accounts.NAME], or in [defaults]"),
    ("[xyzzy]", 1, "xyzzy", "the keys here are accounts, alerts, defaults, http, limits, metrics, store"),
    ('[http]\nlisten = ""\ntokn = 1', 3, "http.tokn", "did you mean 'token'?"),
    ('[http]\nbodies = "full"', 2, "http.bodies", "it belongs in [store]"),
    ("[store]\nretain_expunge = 1", 2, "store.retain_expunge", "did you mean 'retain_expunged'?"),
    ("[defaults]\n\npoll_intervall = 1\n" + ALICE, 3, "defaults.poll_intervall", "did you mean 'poll_interval'?"),
    ("metrics = { acount_label = true }", 1, "metrics.acount_label", "did you mean 'account_label'?"),
    # Maildirs
    (ALICE + "maildir = 1", 5, "accounts.alice.maildir", "expected the path of a file, in quotes"),
    (ALICE + 'maildir = ""', 5, "accounts.alice.maildir", "must be the path of a file"),
    (
        '[store]\nurl = "sqlite:///m/mirror.db"\n' + ALICE + 'maildir = "m"',
        7,
        "accounts.alice.maildir",
        "the store is in this folder; a Maildir needs one of its own",
    ),
    (
        ALICE + 'maildir = "m/a"\n' + ALICE.replace("alice]", "bob]") + 'maildir = "./m//a/.b"',
        10,
        "accounts.bob.maildir",
        "this folder is, or is within, or holds that of the account alice",
    ),
    # missing keys
    (ALICE.replace("host", "# host"), 1, "accounts.alice.host", 'missing; expected host = "imap.example.org"'),
    ("\n\n" + ALICE.replace("username", "# u"), 3, "accounts.alice.username", "missing; expected username = "),
    (ALICE.replace("password", "# p"), 1, "accounts.alice.password", 'missing; expected password = { file = "'),
    # wrong types
    (ALICE + 'port = "993"', 5, "accounts.alice.port", "expected a whole number, like port = 993"),
    (ALICE + "port = 993.0", 5, "accounts.alice.port", "expected a whole number"),
    (ALICE + "port = true", 5, "accounts.alice.port", "expected a whole number"),
    (ALICE + 'enabled = "yes"', 5, "accounts.alice.enabled", "expected true or false, without quotes"),
    (ALICE + "enabled = 1", 5, "accounts.alice.enabled", "expected true or false"),
    (ALICE + 'mailboxes = "INBOX"', 5, "accounts.alice.mailboxes", 'expected a list, like mailboxes = ["INBOX"]'),
    (ALICE + 'mailboxes = [\n"INBOX",\n7]', 7, "accounts.alice.mailboxes[1]", "expected text in quotes"),
    (ALICE + "tls_ca = 1", 5, "accounts.alice.tls_ca", 'the path of a file, in quotes, like tls_ca = "ca.pem"'),
    (ALICE.replace('"alice"', "2024-01-01"), 3, "accounts.alice.username", "expected text in quotes, like username ="),
    (ALICE + "poll_interval = 300", 5, "accounts.alice.poll_interval", "a number needs its unit, in quotes"),
    (ALICE + "max_message_bytes = 1.5", 5, "accounts.alice.max_message_bytes", "expected a size, like"),
    ("store = 5", 1, "store", "expected a table, headed [store]"),
    ("[[http]]\nlisten = ''", 1, "http", "expected a table, headed [http]"),
    ("accounts = 1", 1, "accounts", "headed like [accounts.alice]"),
    ("[[accounts]]\nhost = 'x'", 1, "accounts", "headed like [accounts.alice]"),
    ('[accounts]\nhost = "x"\nusername = "y"', 2, "accounts.host", "headed like [accounts.alice]"),
    ("[limits]\nlogins_per_second = '20'", 2, "limits.logins_per_second", "a number, like logins_per_second = 20"),
    ("[limits]\nlogins_per_second = nan", 2, "limits.logins_per_second", "expected a finite number"),
    ("[limits]\nlogins_per_second = -1", 2, "limits.logins_per_second", "must be at least 0"),
    ("[limits]\nlogins_per_second = inf", 2, "limits.logins_per_second", "expected a finite number"),
    # wrong values
    (ALICE + 'port = 0', 5, "accounts.alice.port", "must be at least 1"),
    (ALICE + 'port = 65536', 5, "accounts.alice.port", "must be at most 65535"),
    (ALICE + f"port = 1{'0' * 40}", 5, "accounts.alice.port", "must be at most 65535"),
    (ALICE + 'tls = "start-tls"', 5, "accounts.alice.tls", '"starttls" or "none"; did you mean \'starttls\'?'),
    (ALICE + 'tls = "Implicit"', 5, "accounts.alice.tls", "did you mean 'implicit'?"),
    (ALICE + 'auth = "xoauth"', 5, "accounts.alice.auth", "did you mean 'xoauth2'?"),
    (ALICE + f'auth = "{CANARY}"', 5, "accounts.alice.auth", 'expected "password", "xoauth2" or "oauthbearer"'),
    (ALICE + 'tls = "none"', 5, "accounts.alice.tls", "allow_plaintext = true"),
    (ALICE + 'hosts = ["b.example.org"]', 5, "accounts.alice.hosts", "either host or hosts, not both"),
    (ALICE.replace('host = "', 'host = "imaps://'), 2, "accounts.alice.host", "without a scheme"),
    (ALICE + "mailboxes = []", 5, "accounts.alice.mailboxes", 'all mailboxes are ["*"]'),
    (ALICE + "mailboxes = ['\\Snet']", 5, "accounts.alice.mailboxes[0]", "did you mean '\\Sent'?"),
    (ALICE + 'idle_renew = "30m"', 5, "accounts.alice.idle_renew", 'must be at most "29m"'),
    (ALICE + 'idle_renew = "4 minutes"', 5, "accounts.alice.idle_renew", 'like "90s", "5m", "1h30m"'),
    (ALICE + 'max_message_bytes = "50M"', 5, "accounts.alice.max_message_bytes", 'like "64KiB", "50MiB"'),
    (ALICE + 'tls_fingerprint = "sha256:ab"', 5, "accounts.alice.tls_fingerprint", "64 hexadecimal digits"),
    (ALICE.replace("alice]", '"-alice"]'), 1, "accounts.-alice", "begins with neither . nor -"),
    (ALICE.replace("alice]", '"a b"]'), 1, 'accounts."a b"', "1 to 128 of A-Z a-z 0-9 . _ @ + -"),
    ('[store]\nurl = "postgresql://localhost/x"', 2, "store.url", "this version stores in SQLite only"),
    ('[store]\nurl = "mirror.db"', 2, "store.url", 'expected "sqlite:///mirror.db"'),
    ('[store]\nbodies = "headrs"', 2, "store.bodies", 'expected "full" or "headers"; did you mean \'headers\'?'),
    ('[store]\nevent_retention = "for ever"', 2, "store.event_retention", 'or "forever"'),
    ('[http]\nlisten = "0.0.0.0:8143"', 2, "http.listen", "a token is needed"),
    ('[http]\nlisten = "8143"', 2, "http.listen", 'expected "host:port", "unix:/path/of/socket"'),
    (f'[alerts]\nurls = ["{CANARY}"]', 2, "alerts.urls[0]", "expected an Apprise URL"),
    ("[limits]\nlogin_burst = 0", 2, "limits.login_burst", "must be at least 1"),
    # secrets
    (ALICE.replace(f'"{CANARY}"', '""'), 4, "accounts.alice.password", "must not be empty"),
    (ALICE.replace(f'"{CANARY}"', "7"), 4, "accounts.alice.password", 'expected a secret: { file = "…" }'),
    (ALICE.replace(f'"{CANARY}"', f'["{CANARY}"]'), 4, "accounts.alice.password", "expected a secret"),
    (ALICE.replace(f'"{CANARY}"', "{}"), 4, "accounts.alice.password", "exactly one place"),
    (ALICE.replace(f'"{CANARY}"', '{ file = "x", env = "Y" }'), 4, "accounts.alice.password", "exactly one place"),
    (ALICE.replace(f'"{CANARY}"', '{ fil = "x" }'), 4, "accounts.alice.password.fil", "did you mean 'file'?"),
    (ALICE.replace(f'"{CANARY}"', f"{{ {CANARY} = 1 }}"), 4, "accounts.alice.password", "expected a secret"),
    (ALICE.replace(f'"{CANARY}"', f'{{ command = "echo {CANARY}" }}'), 4, "accounts.alice.password.command",
     'expected a list, like password = { command = ["pass", "mail/alice"] }'),
    (ALICE.replace(f'"{CANARY}"', "{ env = 1 }"), 4, "accounts.alice.password.env",
     'like password = { env = "ALICE_PASSWORD" }'),
    (ALICE.replace(f'"{CANARY}"', '{ credential = "../x" }'), 4, "accounts.alice.password.credential",
     "without a slash"),
    ("[alerts]\nurls = [\n{ fle = 'x' }]", 3, "alerts.urls[0].fle", "did you mean 'file'?"),
    ("[alerts]\nurls = [{ file = 1 }]", 2, "alerts.urls[0].file", 'like urls = [{ file = "secret.txt" }]'),
    # told where it stands, and not again by each account that inherits it
    ('[defaults]\npoll_interval = "soon"\n' + ALICE, 2, "defaults.poll_interval", "expected a duration"),
    ("[defaults]\nusername = 1\n" + ALICE.replace("username", "# u"), 2, "defaults.username", "expected text"),
    ("[defaults]\nhost = 1\n" + ALICE.replace("host", "# h"), 2, "defaults.host", "expected text"),
    ('[store]\nbodies = "none"\n' + ALICE, 2, "store.bodies", 'expected "full" or "headers"'),
    ('[defaults]\ntls = "none"\n' + ALICE, 3, "accounts.alice.tls", "unprotected over the network"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "key", "fragment"), MISTAKES, ids=[f"{m[2]}: {m[3]}" for m in MISTAKES])
def test_a_mistake_is_one_sentence_with_its_line_and_key(
    tmp_path: Path, text: str, line: int, key: str, fragment: str
) -> None:
    (sentence,) = refusal(tmp_path, text)
    assert sentence.startswith(f"idlepush.toml:{line}: {key}: ")
    assert fragment in sentence
    assert sentence.isprintable()


@pytest.mark.parametrize(
    ("text", "line", "fragment"),
    [
        (ALICE + "port 993", 5, "expected key = value"),
        (ALICE + "port = ", 5, "expected a value"),
        (ALICE + "tls = starttls", 5, "expected a value: text in quotes"),
        (ALICE + 'tls = "starttls', 5, "not closed with its quote"),
        (ALICE.replace(f'{CANARY}"', CANARY), 4, "not closed with its quote"),
        (ALICE.replace(f'"{CANARY}"', f'"{CANARY}\\q"'), 4, "a backslash in double quotes"),
        (ALICE.replace(f'"{CANARY}"', f'"{CANARY}\\u12"'), 4, "four hexadecimal digits"),
        (ALICE + 'mailboxes = ["INBOX"\n', 5, "a list is not closed"),
        (ALICE + "port = 1 2", 5, "the line's end"),
        (ALICE + f'password = "{CANARY}"', 5, "has been defined before"),
        (ALICE + ALICE, 5, "has been defined before"),
        (ALICE + "[http", 5, "header of a table is not closed"),
        (ALICE + "= 1", 5, "expected key = value"),
        (ALICE.replace(f'"{CANARY}"', f"{CANARY}"), 4, "expected a value"),
        (ALICE + "port = 2024-02-30", 5, "no such date"),
        (ALICE + f"x = {'[' * 5000}", 1, "nested too deep"),
        (ALICE + f"x = {'1' * 5000}", 1, "a number is too long"),
    ],
)
def test_broken_toml_is_one_sentence_with_its_line(tmp_path: Path, text: str, line: int, fragment: str) -> None:
    (sentence,) = refusal(tmp_path, text)
    assert sentence.startswith(f"idlepush.toml:{line}: not valid TOML: ")
    assert fragment in sentence


def test_text_that_is_not_utf8_is_refused_by_its_line(tmp_path: Path) -> None:
    text = ALICE.encode() + b"port = 993 # caf\xe9\n# caf\xe9"
    assert refusal(tmp_path, text) == ["idlepush.toml:5: not UTF-8 text; save the file in that encoding"]


def test_the_mark_that_windows_editors_leave_is_passed_over(tmp_path: Path) -> None:
    assert "alice" in loaded(tmp_path, "\ufeff" + ALICE.replace("\n", "\r\n")).accounts


def test_several_mistakes_are_told_at_once_in_the_order_of_their_lines(tmp_path: Path) -> None:
    text = 'htp = 1\n\n[accounts.alice]\npasword = 1\nport = "x"\n[http]\nlisten = 8143\n[accounts.bob]\nport = 0'
    told = [sentence.split(": ")[:2] for sentence in refusal(tmp_path, text)]
    assert told == [
        ["idlepush.toml:1", "htp"],
        ["idlepush.toml:3", "accounts.alice.username"],
        ["idlepush.toml:3", "accounts.alice.host"],
        ["idlepush.toml:4", "accounts.alice.pasword"],
        ["idlepush.toml:5", "accounts.alice.port"],
        ["idlepush.toml:7", "http.listen"],
        ["idlepush.toml:8", "accounts.bob.username"],
        ["idlepush.toml:8", "accounts.bob.password"],
        ["idlepush.toml:8", "accounts.bob.host"],
        ["idlepush.toml:9", "accounts.bob.port"],
    ]


class TestFinding:
    def test_a_named_file_is_taken_even_where_there_is_none(self) -> None:
        named = Path("nowhere.toml")
        assert find(named, {"IDLEPUSH_CONFIG": "other.toml"}) == named
        assert find(None, {"IDLEPUSH_CONFIG": "other.toml"}) == Path("other.toml")

    def test_the_working_directory_comes_before_the_home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        theirs = write(tmp_path / "config/idlepush/idlepush.toml", "")
        environment = {"XDG_CONFIG_HOME": str(tmp_path / "config"), "IDLEPUSH_CONFIG": ""}
        assert find(None, environment) == theirs
        write(tmp_path / "idlepush.toml", "")
        assert find(None, environment) == Path("idlepush.toml")

    def test_the_home_has_its_usual_place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        theirs = write(tmp_path / ".config/idlepush/idlepush.toml", "")
        assert find(None, {"HOME": str(tmp_path), "XDG_CONFIG_HOME": "relative"}) == theirs

    def test_none_at_all_is_a_sentence_that_says_where_it_was_looked_for(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("idlepush.config.loading.SYSTEM_PATH", tmp_path / "etc.toml")
        with pytest.raises(ConfigError) as caught:
            find(None, {"HOME": "/nowhere"})
        assert str(caught.value) == (
            "no configuration: looked for idlepush.toml, /nowhere/.config/idlepush/idlepush.toml and "
            f"{tmp_path}/etc.toml; name one with --config or $IDLEPUSH_CONFIG"
        )

    def test_the_last_place_is_the_systems(self) -> None:
        assert Path("/etc/idlepush/idlepush.toml") == SYSTEM_PATH

    @pytest.mark.parametrize(
        ("name", "reason"), [("none.toml", "no such file or directory"), ("", "is a directory"), ("a\0b", "ValueError")]
    )
    def test_a_file_that_cannot_be_read_is_named(self, tmp_path: Path, name: str, reason: str) -> None:
        with pytest.raises(ConfigError, match=f"cannot be read: {reason}") as caught:
            load(tmp_path / name, {})
        assert str(caught.value).isprintable()

    def test_the_environment_is_a_copy_of_the_process_s(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("IDLEPUSH_CONFIG", "x.toml")
        assert service_environment()["IDLEPUSH_CONFIG"] == "x.toml"


class TestPaths:
    def test_relative_paths_are_relative_to_their_file(self, tmp_path: Path) -> None:
        config = loaded(
            tmp_path,
            '[store]\nurl = "sqlite:///data/mirror.db"\n[http]\nlisten = "unix:http.sock"\ntoken = { file = "token" }\n'
            '[alerts]\nurls = [{ file = "url" }]\n[defaults]\ntls_ca = "ca.pem"\n[accounts.alice]\nhost = "x"\n'
            'username = "x"\npassword = { file = "keys/alice" }\n',
        )
        alice = config.accounts["alice"]
        assert config.store.path == tmp_path / "data/mirror.db"
        assert config.http.unix_path == tmp_path / "http.sock"
        assert config.http.token == FileSecret(file=tmp_path / "token")
        assert config.alerts.urls == (FileSecret(file=tmp_path / "url"),)
        assert alice.tls_ca == tmp_path / "ca.pem"
        assert alice.password == FileSecret(file=tmp_path / "keys/alice")

    def test_absolute_paths_and_the_home_stay_what_they_are(self, tmp_path: Path) -> None:
        config = loaded(
            tmp_path,
            '[store]\nurl = "sqlite:////var/lib/mirror.db"\n[defaults]\ntls_ca = "~/ca.pem"\n[accounts.alice]\n'
            'host = "x"\nusername = "x"\npassword = { file = "/run/alice" }\n',
        )
        assert config.store.path == Path("/var/lib/mirror.db")
        assert config.accounts["alice"].tls_ca == Path("/home/alice/ca.pem")
        assert config.accounts["alice"].password == FileSecret(file=Path("/run/alice"))

    @pytest.mark.parametrize(
        ("program", "found"),
        [("pass", "pass"), ("./get", "{}/get"), ("~/get", "/home/alice/get"), ("/bin/x", "/bin/x")],
    )
    def test_a_program_is_searched_for_unless_it_is_a_path(self, tmp_path: Path, program: str, found: str) -> None:
        text = ALICE.replace(f'"{CANARY}"', f'{{ command = ["{program}", "./x"] }}')
        wanted = CommandSecret(command=(found.format(tmp_path), "./x"))
        assert loaded(tmp_path, text).accounts["alice"].password == wanted

    @pytest.mark.parametrize(
        ("environment", "path"),
        [
            (
                {"STATE_DIRECTORY": "/var/lib/idlepush", "XDG_STATE_HOME": "/s", "HOME": "/h"},
                "/var/lib/idlepush/mirror.db",
            ),
            ({"STATE_DIRECTORY": "/var/lib/a:/var/lib/b"}, "/var/lib/a/mirror.db"),
            ({"XDG_STATE_HOME": "/s", "HOME": "/h"}, "/s/idlepush/mirror.db"),
            ({"XDG_STATE_HOME": "s", "HOME": "/h"}, "/h/.local/state/idlepush/mirror.db"),
        ],
    )
    def test_the_mirror_has_a_place_in_the_environment(
        self, tmp_path: Path, environment: dict[str, str], path: str
    ) -> None:
        assert loaded(tmp_path, "", environment).store.path == Path(path)

    def test_a_mirror_without_a_place_is_a_missing_key(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r'store\.url: missing; expected url = "sqlite:///mirror\.db"'):
            loaded(tmp_path, "", {})


class TestAccounts:
    def test_an_empty_file_is_a_configuration_without_accounts(self, tmp_path: Path) -> None:
        config = loaded(tmp_path, "")
        assert dict(config.accounts) == {}
        assert (config.problems, config.warnings, config.files) == ((), (), (tmp_path / "idlepush.toml",))

    def test_an_account_s_own_keys_win_over_the_defaults_and_those_over_the_stores(self, tmp_path: Path) -> None:
        text = (
            '[store]\nbodies = "headers"\nmax_message_bytes = "1MiB"\n'
            '[defaults]\nmax_message_bytes = "2MiB"\nport = 1993\npoll_interval = "1m"\n'
        )
        alice = loaded(tmp_path, text + ALICE + 'poll_interval = "2m"').accounts["alice"]
        assert (alice.bodies, alice.max_message_bytes, alice.port, alice.poll_interval) == ("headers", 2**21, 1993, 120)

    def test_hosts_of_an_account_hide_the_host_of_the_defaults(self, tmp_path: Path) -> None:
        text = '[defaults]\nhost = "default.example.org"\n' + ALICE.replace(
            'host = "imap.example.org"', 'hosts = ["a.example.org"]'
        )
        assert loaded(tmp_path, text).accounts["alice"].endpoints == (("a.example.org", 993),)

    def test_a_missing_secret_file_is_no_mistake_of_the_configuration(self, tmp_path: Path) -> None:
        text = ALICE.replace(f'"{CANARY}"', '{ file = "nowhere" }')
        assert loaded(tmp_path, text).accounts["alice"].password == FileSecret(file=tmp_path / "nowhere")

    def test_loading_twice_gives_equal_accounts(self, tmp_path: Path) -> None:
        assert loaded(tmp_path, ALICE) == loaded(tmp_path, ALICE)
        assert loaded(tmp_path, ALICE) != loaded(tmp_path, ALICE + "port = 1")

    def test_the_accounts_cannot_be_changed(self, tmp_path: Path) -> None:
        accounts: Any = loaded(tmp_path, ALICE).accounts
        with pytest.raises(TypeError):
            accounts["bob"] = accounts["alice"]


class TestExposure:
    @pytest.mark.parametrize("mode", [0o644, 0o604, 0o640, 0o666], ids=oct)
    @pytest.mark.parametrize(
        ("text", "line", "key"),
        [
            (ALICE, 4, "accounts.alice.password"),
            (ALICE + f'[http]\ntoken = "{CANARY}"\n', 4, "accounts.alice.password"),
            (f'[http]\ntoken = "{CANARY}"\n', 2, "http.token"),
            (f'[defaults]\npassword = "{CANARY}"\n', 2, "defaults.password"),
        ],
    )
    def test_a_plain_secret_in_a_file_that_others_can_read_is_refused(
        self, tmp_path: Path, text: str, line: int, key: str, mode: int
    ) -> None:
        (sentence,) = refusal(tmp_path, text, mode)
        file, name = tmp_path / "idlepush.toml", key.rpartition(".")[2]
        expected = f'others can read this file: chmod 600 {file}, or write {name} = {{ file = "…" }}'
        assert sentence == f"idlepush.toml:{line}: {key}: {expected}"

    def test_a_file_that_only_refers_to_secrets_may_be_read_by_all(self, tmp_path: Path) -> None:
        text = ALICE.replace(f'"{CANARY}"', '{ env = "ALICE" }') + '[http]\ntoken = { file = "token" }'
        assert loaded(tmp_path, text, mode=0o644).warnings == ()

    def test_a_plain_alert_url_in_a_file_that_others_can_read_is_a_warning(self, tmp_path: Path) -> None:
        text = f'[alerts]\nurls = [{{ file = "x" }},\n"ntfy://{CANARY}"]\n'
        (warning,) = loaded(tmp_path, text, mode=0o644).warnings
        assert warning.startswith(f"{tmp_path}/idlepush.toml:3: alerts.urls[1]: others can read this file")
        assert CANARY not in warning
        assert loaded(tmp_path, text).warnings == ()

    def test_a_pipe_has_no_readers_but_one(self, tmp_path: Path) -> None:
        reading, writing = os.pipe()
        try:
            os.write(writing, ALICE.encode())
            os.close(writing)
            assert "alice" in load(Path(f"/dev/fd/{reading}"), ENVIRONMENT).accounts
        finally:
            os.close(reading)


BOB = ALICE.replace("alice", "bob")


class TestDropIns:
    def test_accounts_d_is_merged_in_with_the_defaults(self, tmp_path: Path) -> None:
        write(tmp_path / "accounts.d/bob.toml", BOB.replace(f'"{CANARY}"', '{ file = "bob" }'), 0o644)
        write(tmp_path / "accounts.d/.#bob.toml", "an editor's lock")
        write(tmp_path / "accounts.d/notes.txt", "no TOML")
        config = loaded(tmp_path, '[defaults]\nport = 1993\ntls_ca = "ca.pem"\n' + ALICE)
        bob = config.accounts["bob"]
        assert list(config.accounts) == ["alice", "bob"]
        assert bob.port == 1993
        assert bob.tls_ca == tmp_path / "ca.pem"
        assert bob.password == FileSecret(file=tmp_path / "accounts.d/bob")
        assert config.files == (tmp_path / "idlepush.toml", tmp_path / "accounts.d/bob.toml")

    @pytest.mark.parametrize(
        ("text", "line", "fragment"),
        [
            (BOB + "port = 0", 5, "accounts.bob.port: must be at least 1"),
            (BOB + "port", 5, "not valid TOML: expected key = value"),
            (ALICE, 1, "accounts.alice: this account is defined in {}/idlepush.toml"),
            (BOB + '[store]\nurl = "sqlite:///x"', 5, "store: belongs in the main file"),
            (BOB + "[defaults]\nport = 1", 5, "defaults: belongs in the main file"),
            ("[acounts.bob]", 1, "acounts: unknown key; did you mean 'accounts'?"),
            ("[bob]\nhost = 'x'", 1, "bob: unknown table; did you mean [accounts.bob]?"),
        ],
    )
    def test_a_broken_file_is_reported_and_skipped_and_the_others_run(
        self, tmp_path: Path, text: str, line: int, fragment: str
    ) -> None:
        broken = write(tmp_path / "accounts.d/a.toml", text)
        write(tmp_path / "accounts.d/b.toml", ALICE.replace("alice", "carol"))
        config = loaded(tmp_path, ALICE)
        assert list(config.accounts) == ["alice", "carol"]
        assert broken not in config.files
        (problem,) = config.problems
        assert problem.file == broken
        (sentence,) = problem.sentences
        assert sentence.startswith(f"{broken}:{line}: {fragment.format(tmp_path)}")
        assert CANARY not in sentence

    def test_of_two_files_with_one_account_the_later_is_skipped(self, tmp_path: Path) -> None:
        first = write(tmp_path / "accounts.d/1.toml", BOB)
        second = write(tmp_path / "accounts.d/2.toml", BOB + "port = 1\n" + BOB.replace("bob", "dave"))
        config = loaded(tmp_path, ALICE)
        assert list(config.accounts) == ["alice", "bob"]
        assert config.accounts["bob"].port == 993
        assert [problem.sentences for problem in config.problems] == [
            (f"{second}:1: accounts.bob: this account is defined in {first}",)
        ]

    def test_a_plain_secret_in_one_that_others_can_read_skips_that_one(self, tmp_path: Path) -> None:
        file = write(tmp_path / "accounts.d/bob.toml", BOB, 0o644)
        (problem,) = loaded(tmp_path, ALICE).problems
        assert problem.sentences[0].startswith(f"{file}:4: accounts.bob.password: others can read this file: chmod 600")

    def test_one_that_points_nowhere_is_a_problem(self, tmp_path: Path) -> None:
        (tmp_path / "accounts.d").mkdir()
        (tmp_path / "accounts.d/bob.toml").symlink_to("gone.toml")
        (problem,) = loaded(tmp_path, ALICE).problems
        assert "cannot be read: no such file or directory" in problem.sentences[0]

    def test_accounts_d_that_is_a_file_holds_no_accounts(self, tmp_path: Path) -> None:
        write(tmp_path / "accounts.d", "")
        assert loaded(tmp_path, ALICE).problems == ()


EVERYTHING = f"""\
[store]
url = "sqlite:///mirror.db"
bodies = "headers"
event_retention = "forever"
[http]
listen = "0.0.0.0:8143"
token = "{CANARY}"
[alerts]
urls = ["json://{CANARY}@example.org", {{ env = "URL" }}]
[limits]
logins_per_second = 0.5
[defaults]
mailboxes = ["*", "!Junk", '\\Sent']
{ALICE}
[accounts."bob@example.org"]
hosts = ["a.example.org:993", "[2001:db8::1]:993"]
username = "bob \\u00e9\\u202e"
tls_fingerprint = "sha256:{"0f" * 32}"
password = {{ command = ["echo", "{CANARY}"] }}
"""


class TestShowing:
    def test_what_is_in_force_is_shown_as_toml_without_secrets(self, tmp_path: Path) -> None:
        shown = masked(loaded(tmp_path, EVERYTHING))
        assert CANARY not in shown
        assert all(line.isprintable() for line in shown.splitlines())
        tables = tomllib.loads(shown)
        assert tables["store"] == {
            "url": f"sqlite:///{tmp_path}/mirror.db",
            "bodies": "headers",
            "max_message_bytes": "50MiB",
            "retain_expunged": "30d",
            "keep_expunged_bodies": False,
            "event_retention": "forever",
        }
        assert tables["http"]["token"] == "***"
        assert tables["alerts"]["urls"] == ["***", {"env": "URL"}]
        assert tables["limits"]["logins_per_second"] == 0.5
        bob = tables["accounts"]["bob@example.org"]
        assert bob["password"] == {"command": ["echo", "***"]}
        assert bob["username"] == "bob é\u202e"
        assert bob["mailboxes"] == ["*", "!Junk", "\\Sent"]
        assert "host" not in bob

    def test_what_is_shown_loads_again_to_the_same_but_for_the_secrets(self, tmp_path: Path) -> None:
        config = loaded(tmp_path, EVERYTHING)
        again = loaded(tmp_path / "again", masked(config).replace('urls = ["***"', 'urls = ["json://***"'))
        assert again.store == config.store
        assert again.limits == config.limits
        blank = {"password": PlainSecret.model_validate("x")}
        assert {name: account.model_copy(update=blank) for name, account in again.accounts.items()} == {
            name: account.model_copy(update=blank) for name, account in config.accounts.items()
        }

    def test_a_configuration_s_repr_holds_no_secret(self, tmp_path: Path) -> None:
        assert CANARY not in repr(loaded(tmp_path, EVERYTHING))

    def test_the_schema_knows_every_key(self) -> None:
        schema = json.loads(json.dumps(json_schema()))
        assert schema["properties"].keys() == {*SECTIONS, "accounts"}
        for name, model in SECTIONS.items():
            definition = schema["$defs"][schema["properties"][name]["$ref"].rpartition("/")[2]]
            assert definition["properties"].keys() == model.model_fields.keys()
            assert definition["additionalProperties"] is False
        account = schema["$defs"]["AccountSettings"]
        assert account["properties"].keys() == AccountSettings.model_fields.keys() - {"name"}
        assert account["properties"]["poll_interval"]["default"] == "5m"
        assert re.fullmatch(account["properties"]["poll_interval"]["pattern"], "1h30m")
        assert not re.fullmatch(account["properties"]["poll_interval"]["pattern"], "")


def outcome(tmp_path: Path, text: str) -> str:
    """Load whatever *text* is, and return all that can be seen of the outcome."""
    refused: ConfigError | None = None
    try:
        config = loaded(tmp_path, text)
    except ConfigError as error:
        refused = error
    if refused is None:
        return f"{config!r} {masked(config)}"
    sentences = str(refused).splitlines()
    assert sentences
    assert all(sentence.startswith(f"{tmp_path}/idlepush.toml:") and sentence.isprintable() for sentence in sentences)
    assert refused.__context__ is None
    return str(refused)


def keys_and_texts(value: object, key: str = "") -> Iterator[str]:
    """Every key, and every text that does not stand where a secret belongs."""
    if isinstance(value, dict):
        for name, inside in value.items():
            yield name
            yield from keys_and_texts(inside, name)
    elif isinstance(value, list):
        for inside in value:
            yield from keys_and_texts(inside, key)
    elif isinstance(value, str) and key not in {"password", "token", "urls", "command"}:
        yield value


_pieces = st.sampled_from(
    [*"[]{}\"'=.,#\n\\ \x00\ufeff", '"""', "= 1", "true", "accounts", "[accounts.x]\n", "-1", "é"]
)
_edits = st.lists(
    st.tuples(st.integers(0, len(EVERYTHING)), st.integers(0, 30), _pieces | st.integers(0, len(EVERYTHING))),
    min_size=1,
    max_size=4,
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=_edits)
def test_no_damage_to_the_text_raises_anything_else_or_shows_a_password(
    tmp_path: Path, edits: list[tuple[int, int, str | int]]
) -> None:
    text = EVERYTHING
    for at, length, instead in edits:
        # A number is a place from where a piece is copied: doubled tables, keys in other tables.
        piece = instead if isinstance(instead, str) else EVERYTHING[instead : instead + 60]
        text = text[:at] + piece + text[at + length :]
    said = outcome(tmp_path, text)
    try:
        tables = tomllib.loads(text.removeprefix("\ufeff"))
    except ValueError:
        tables = {}
    # The damage may have made a key of the password, and keys are named.
    if not any(CANARY in each for each in keys_and_texts(tables)):
        assert CANARY not in said


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.just(CANARY) | st.text(max_size=5),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.sampled_from(["file", "env", "x"]), inside),
    max_leaves=4,
)
_every_key = sorted({key for model in SECTIONS.values() for key in model.model_fields} | {"name", "xyzzy"})


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tables=st.dictionaries(
        st.sampled_from([*SECTIONS, "accounts.alice", "accounts.'b b'", "accounts", "xyzzy"]),
        st.dictionaries(st.sampled_from(_every_key), _values, max_size=6),
    )
)
def test_no_value_of_any_key_raises_anything_else_or_is_shown(
    tmp_path: Path, tables: dict[str, dict[str, object]]
) -> None:
    text = "".join(
        f"[{header}]\n" + "".join(f"{key} = {written(value)}\n" for key, value in table.items())
        for header, table in tables.items()
    )
    said = outcome(tmp_path, text)
    if said.startswith(f"{tmp_path}/"):
        assert CANARY not in said


def written(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {written(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(written, value))}]"
    if value is None:
        return "1979-05-27"
    return str(value).lower() if isinstance(value, bool | int | float) else json.dumps(value).replace("\x7f", "")


def test_a_maildir_is_relative_to_the_file_it_stands_in(tmp_path: Path) -> None:
    found = loaded(tmp_path, ALICE + 'maildir = "mail/alice"')
    assert found.accounts["alice"].maildir == tmp_path / "mail" / "alice"


def test_a_dropped_in_account_with_anothers_maildir_is_skipped_alone(tmp_path: Path) -> None:
    bob = ALICE.replace("alice]", "bob]") + 'maildir = "../mail"\n'
    write(tmp_path / "accounts.d" / "bob.toml", bob)
    write(tmp_path / "accounts.d" / "carol.toml", bob.replace("bob]", "carol]").replace("../mail", "../other"))
    found = loaded(tmp_path, ALICE + 'maildir = "mail"')
    assert sorted(found.accounts) == ["alice", "carol"]
    [problem] = found.problems
    assert problem.sentences[0].endswith(
        ":5: accounts.bob.maildir: this folder is, or is within, or holds that of the account alice"
    )
