"""What an account, the store, the listener, the alerts and the limits take, refuse and fill in."""

import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from idlepush.engine.settings import AccountSettings, LimitSettings, is_loopback, parse_endpoint
from idlepush.serve.settings import HttpSettings
from idlepush.store.quantities import parse_duration, parse_size, spell_duration, spell_size
from idlepush.store.settings import Settings, StoreSettings
from idlepush.telemetry.settings import AlertSettings, MetricsSettings

CANARY = "canary-7f3a"
FINGERPRINT = "sha256:" + "0123456789abcdef" * 4


def account(**keys: Any) -> AccountSettings:
    return AccountSettings(
        **{"name": "alice", "host": "imap.example.org", "username": "alice", "password": CANARY} | keys
    )


class TestDurations:
    @pytest.mark.parametrize(
        ("text", "seconds"),
        [("1s", 1), ("90s", 90), ("5m", 300), ("1h30m", 5400), ("30d", 2_592_000), ("2w", 1_209_600), ("1d1s", 86_401)],
    )
    def test_a_duration_is_its_seconds(self, text: str, seconds: float) -> None:
        assert parse_duration(text) == seconds

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "0s",
            "0m",
            "5",
            "5 m",
            "m",
            "1.5h",
            "-5m",
            "30m1h",
            "1m1m",
            "5M",
            "500ms",
            "٥m",
            "5m\n",
            "forever",
            "999999999w",
            5,
            5.0,
            True,
            None,
            ["5m"],
        ],
        ids=repr,
    )
    def test_anything_else_is_refused_without_repeating_it(self, text: object) -> None:
        with pytest.raises(ValueError, match="expected a duration") as caught:
            parse_duration(text)
        assert "30m1h" not in str(caught.value)

    @given(st.integers(1, 36_500 * 86_400))
    def test_a_spelled_duration_reads_back(self, seconds: int) -> None:
        assert parse_duration(spell_duration(seconds)) == seconds

    def test_durations_are_spelled_as_people_say_them(self) -> None:
        assert [spell_duration(each) for each in (60, 5400, 2_592_000, 1_209_600)] == ["1m", "1h30m", "30d", "2w"]


class TestSizes:
    @pytest.mark.parametrize(
        ("text", "size"),
        [
            ("0", 0),
            (0, 0),
            (512, 512),
            ("512", 512),
            ("1B", 1),
            ("64KiB", 65536),
            ("50MiB", 52428800),
            ("10MB", 10000000),
            ("1kB", 1000),
            ("1KB", 1000),
            ("2GiB", 2 * 1024**3),
            ("1TiB", 1024**4),
        ],
    )
    def test_a_size_is_its_bytes(self, text: object, size: int) -> None:
        assert parse_size(text) == size

    @pytest.mark.parametrize(
        "text",
        ["", "MiB", "1.5MiB", "-1", -1, "50 MiB", "50M", "50mib", "1iB", "٥", "9" * 19 + "TiB", 2**63, 1.0, True, None],
        ids=repr,
    )
    def test_anything_else_is_refused(self, text: object) -> None:
        with pytest.raises(ValueError, match="expected a size"):
            parse_size(text)

    @given(st.integers(0, 2**63 - 1) | st.integers(0, 2**40).map(lambda mebibytes: mebibytes * 2**20))
    def test_a_spelled_size_reads_back(self, size: int) -> None:
        assert parse_size(spell_size(size)) == size


class TestEndpoints:
    @pytest.mark.parametrize(
        ("text", "endpoint"),
        [
            ("imap.example.org", ("imap.example.org", 993)),
            ("imap.example.org:1993", ("imap.example.org", 1993)),
            ("192.0.2.1:143", ("192.0.2.1", 143)),
            ("[2001:db8::1]:143", ("2001:db8::1", 143)),
            ("[2001:db8::1]", ("2001:db8::1", 993)),
            ("2001:db8::1", ("2001:db8::1", 993)),
        ],
    )
    def test_a_port_is_split_from_its_host(self, text: str, endpoint: tuple[str, int]) -> None:
        assert parse_endpoint(text, 993) == endpoint

    @pytest.mark.parametrize(
        "text",
        [
            "",
            ":993",
            "host:",
            "host:0",
            "host:65536",
            "host:imap",
            "host:٩",
            "imap://host",
            "a b",
            "a/b",
            "u@h",
            "[::1",
            "a\r\nb",
            "h\x00",
            "x" * 254,
            "[nonsense]:1",
            "a:b:c",
        ],
    )
    def test_what_is_no_endpoint_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match="expected"):
            parse_endpoint(text, 993)

    @pytest.mark.parametrize("host", ["localhost", "LOCALHOST.", "127.0.0.1", "127.1.2.3", "::1"])
    def test_loopback_is_recognized(self, host: str) -> None:
        assert is_loopback(host)

    @pytest.mark.parametrize("host", ["", "imap.example.org", "localhost.example.org", "0.0.0.0", "::", "192.168.0.1"])
    def test_nothing_else_is_taken_for_loopback(self, host: str) -> None:
        assert not is_loopback(host)


class TestAccounts:
    def test_an_account_needs_a_host_a_username_and_a_password_alone(self) -> None:
        plain = account()
        assert plain.enabled
        assert plain.endpoints == (("imap.example.org", 993),)
        assert (plain.tls, plain.auth, plain.mailboxes, plain.connections) == ("implicit", "password", ("INBOX",), 2)
        assert (plain.idle_renew, plain.proof_interval, plain.flags_interval) == (240.0, 900.0, 900.0)
        assert (plain.poll_interval, plain.connect_timeout, plain.command_timeout) == (300.0, 30.0, 60.0)
        assert (plain.bodies, plain.max_message_bytes) == ("full", 50 * 1024**2)

    @pytest.mark.parametrize(("tls", "port"), [("implicit", 993), ("starttls", 143), ("none", 143)])
    def test_the_port_follows_from_tls(self, tls: str, port: int) -> None:
        assert account(host="localhost", tls=tls).port == port
        assert account(host="localhost", tls=tls, port=1143).port == 1143

    def test_each_of_several_hosts_has_its_port_or_the_accounts(self) -> None:
        several = account(host=None, hosts=["a.example.org", "b.example.org:1143", "[::1]"], tls="starttls")
        assert several.endpoints == (("a.example.org", 143), ("b.example.org", 1143), ("::1", 143))

    @pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1", "[::1]"])
    def test_plaintext_is_fine_on_loopback(self, host: str) -> None:
        assert account(host=host, tls="none").tls == "none"

    def test_plaintext_over_the_network_has_to_be_allowed(self) -> None:
        with pytest.raises(ValidationError, match="unprotected over the network"):
            account(tls="none")
        with pytest.raises(ValidationError, match="unprotected over the network"):
            account(host=None, hosts=["localhost", "imap.example.org"], tls="none")
        assert account(tls="none", allow_plaintext=True).allow_plaintext

    def test_a_fingerprint_is_the_same_however_it_is_written(self) -> None:
        colons = ":".join("0123456789ABCDEF" * 4)
        assert account(tls_fingerprint=f"SHA256:{colons}") == account(tls_fingerprint=FINGERPRINT)

    @pytest.mark.parametrize("auth", ["password", "xoauth2", "oauthbearer"])
    def test_every_way_to_log_in_is_accepted(self, auth: str) -> None:
        assert account(auth=auth).auth == auth

    @pytest.mark.parametrize(
        "mailboxes", [["*"], ["INBOX", "Lists/%"], ["\\Sent", "!\\junk"], ["*", "!Archive/*"], ["Entwürfe", "a & b"]]
    )
    def test_patterns_stay_as_they_are_written(self, mailboxes: list[str]) -> None:
        assert account(mailboxes=mailboxes).mailboxes == tuple(mailboxes)

    @pytest.mark.parametrize(
        ("keys", "fragment"),
        [
            ({"host": None}, "host or hosts is needed"),
            ({"hosts": ["b.example.org"]}, "not both"),
            ({"host": None, "hosts": []}, "host or hosts is needed"),
            ({"host": ""}, "expected a host"),
            ({"host": "imap\r\nx"}, "expected a host"),
            ({"host": "imap.example.org:993"}, "the port is a key of its own"),
            ({"host": "imaps://imap.example.org"}, "without a scheme"),
            ({"host": None, "hosts": ["a:0"]}, "a port from 1 to 65535"),
            ({"port": 0}, "greater than or equal to 1"),
            ({"port": 65536}, "less than or equal to 65535"),
            ({"port": "993"}, "valid integer"),
            ({"port": True}, "valid integer"),
            ({"enabled": "yes"}, "valid boolean"),
            ({"tls": "ssl"}, "'implicit', 'starttls' or 'none'"),
            ({"auth": "plain"}, "'password', 'xoauth2' or 'oauthbearer'"),
            ({"tls_fingerprint": FINGERPRINT[:-1]}, "64 hexadecimal digits"),
            ({"tls_fingerprint": "md5:" + "0" * 64}, "64 hexadecimal digits"),
            ({"tls_ca": ""}, "path of a file"),
            ({"username": ""}, "must not be empty"),
            ({"username": "a\r\nb"}, "control characters"),
            ({"username": "a\0b"}, "control characters"),
            ({"password": ""}, "must not be empty"),
            ({"password": f"{CANARY}\r\nx"}, "single line"),
            ({"mailboxes": []}, "must not be empty"),
            ({"mailboxes": [""]}, "must not be empty"),
            ({"mailboxes": ["!"]}, "excludes the pattern behind it"),
            ({"mailboxes": ["!Junk"]}, "nothing would be mirrored"),
            ({"mailboxes": ["a\nb"]}, "control characters"),
            ({"mailboxes": ["\\Snet"]}, r"did you mean '\\Sent'"),
            ({"mailboxes": "INBOX"}, "valid tuple"),
            ({"connections": 0}, "greater than or equal to 1"),
            ({"idle_renew": "29m1s"}, 'at most "29m"'),
            ({"idle_renew": "0s"}, "from 1s up"),
            ({"poll_interval": 300}, "a number needs its unit"),
            ({"bodies": "none"}, "'full' or 'headers'"),
            ({"max_message_bytes": "50M"}, "expected a size"),
            ({"colour": "red"}, "not permitted"),
            ({"name": "../alice"}, "an account's name has"),
            ({"name": ".alice"}, "an account's name has"),
            ({"name": "-alice"}, "an account's name has"),
            ({"name": "a" * 129}, "an account's name has"),
            ({"name": "alice\n"}, "an account's name has"),
        ],
        ids=repr,
    )
    def test_a_wrong_key_is_refused_and_shows_no_secret(self, keys: dict[str, Any], fragment: str) -> None:
        with pytest.raises(ValidationError, match=fragment) as caught:
            account(**keys)
        assert caught.value.error_count() == 1
        assert CANARY not in str(caught.value)

    @pytest.mark.parametrize("name", ["alice", "alice@example.org", "a.b+c-d_e", "@", "+1", "a" * 128])
    def test_a_name_may_be_an_address(self, name: str) -> None:
        assert account(name=name).name == name

    def test_an_account_is_frozen_and_shows_no_secret(self) -> None:
        shown = account()
        with pytest.raises(ValidationError, match="frozen"):
            shown.port = 1  # type: ignore[misc]
        assert CANARY not in f"{shown} {shown!r} {shown.model_dump()} {shown.model_dump_json()}"
        assert copy.deepcopy(shown) == shown

    def test_accounts_differ_when_their_plain_passwords_do(self) -> None:
        assert account() == account()
        assert hash(account()) == hash(account())
        assert account() != account(password="another")

    @pytest.mark.parametrize("key", sorted(AccountSettings.model_fields.keys() - {"name"}))
    def test_every_key_has_a_description_and_an_example_that_it_accepts(self, key: str) -> None:
        field = AccountSettings.model_fields[key]
        assert field.description
        assert field.examples
        other = {"host": None} if key == "hosts" else {}
        assert account(**other | {key: field.examples[0]})


class TestStore:
    def test_three_slashes_begin_a_relative_path_and_four_an_absolute_one(self) -> None:
        assert StoreSettings(url="sqlite:///mirror.db").path == Path("mirror.db")
        assert StoreSettings(url="sqlite:////var/lib/mirror.db").path == Path("/var/lib/mirror.db")

    @pytest.mark.parametrize("url", ["postgresql://localhost/mirror", "postgres://x", "postgresql+asyncpg://x"])
    def test_another_database_is_refused_by_saying_what_there_is(self, url: str) -> None:
        with pytest.raises(ValidationError, match="stores in SQLite only"):
            StoreSettings(url=url)

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "mirror.db",
            "sqlite:",
            "sqlite://",
            "sqlite:///",
            "sqlite:///x/",
            "sqlite:///:memory:",
            "sqlite:///x?mode=ro",
            "sqlite:///a\x00b",
            "mysql:///x",
        ],
    )
    def test_what_names_no_file_is_refused(self, url: str) -> None:
        with pytest.raises(ValidationError):
            StoreSettings(url=url)

    def test_events_may_be_kept_forever(self) -> None:
        assert (
            StoreSettings.model_validate({"url": "sqlite:///x", "event_retention": "forever"}).event_retention is None
        )
        assert StoreSettings(url="sqlite:///x").event_retention == 30 * 86_400
        with pytest.raises(ValidationError, match='or "forever"'):
            StoreSettings.model_validate({"url": "sqlite:///x", "event_retention": "always"})


class TestHttp:
    def test_it_listens_on_loopback_unless_told_otherwise(self) -> None:
        assert HttpSettings().address == ("127.0.0.1", 8143)
        assert HttpSettings().unix_path is None

    @pytest.mark.parametrize(
        ("listen", "address", "unix_path"),
        [
            ("localhost:0", ("localhost", 0), None),
            ("[::1]:80", ("::1", 80), None),
            ("unix:/run/idlepush/http.sock", None, Path("/run/idlepush/http.sock")),
            ("", None, None),
        ],
    )
    def test_what_others_cannot_reach_needs_no_token(
        self, listen: str, address: tuple[str, int] | None, unix_path: Path | None
    ) -> None:
        http = HttpSettings(listen=listen)
        assert (http.address, http.unix_path) == (address, unix_path)

    @pytest.mark.parametrize(
        "listen", ["0.0.0.0:8143", ":8143", "[::]:8143", "192.0.2.1:80", "idlepush.example.org:80"]
    )
    def test_what_others_can_reach_needs_a_token(self, listen: str) -> None:
        with pytest.raises(ValidationError, match="a token is needed"):
            HttpSettings(listen=listen)
        assert HttpSettings.model_validate({"listen": listen, "token": CANARY}).address is not None

    @pytest.mark.parametrize("listen", ["8143", "127.0.0.1", "::1:80", "host:65536", "unix:", "http://x:80", "a b:80"])
    def test_what_is_no_address_is_refused(self, listen: str) -> None:
        with pytest.raises(ValidationError, match="host:port"):
            HttpSettings(listen=listen)


class TestTheOthers:
    def test_alerts_take_urls_and_secrets(self) -> None:
        alerts = AlertSettings.model_validate({"urls": [f"ntfy://{CANARY}", {"file": "/run/url"}], "grace": "1m"})
        assert (len(alerts.urls), alerts.grace, alerts.cooldown) == (2, 60.0, 1800.0)
        assert CANARY not in f"{alerts!r} {alerts.model_dump_json()}"

    def test_an_alert_url_needs_a_scheme(self) -> None:
        with pytest.raises(ValidationError, match="Apprise URL") as caught:
            AlertSettings.model_validate({"urls": [CANARY]})
        assert CANARY not in str(caught.value)

    def test_logins_may_be_unbounded(self) -> None:
        assert LimitSettings(logins_per_second=0).logins_per_second == 0
        assert LimitSettings(logins_per_second=0.5, login_burst=1).login_burst == 1

    @pytest.mark.parametrize(
        "keys",
        [
            {"logins_per_second": -1},
            {"logins_per_second": float("inf")},
            {"logins_per_second": float("nan")},
            {"logins_per_second": True},
            {"login_burst": 0},
        ],
        ids=repr,
    )
    def test_a_limit_is_a_number_that_means_something(self, keys: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            LimitSettings(**keys)

    def test_metrics_tell_accounts_apart_unless_told_not_to(self) -> None:
        assert MetricsSettings().account_label
        assert not MetricsSettings(account_label=False).account_label

    @pytest.mark.parametrize("model", [StoreSettings, HttpSettings, AlertSettings, LimitSettings, MetricsSettings])
    def test_every_key_has_a_description_and_an_example_that_it_accepts(self, model: type[Settings]) -> None:
        for key, field in model.model_fields.items():
            assert field.description
            assert field.examples
            assert model.model_validate(
                ({"url": "sqlite:///x"} if model is StoreSettings else {}) | {key: field.examples[0]}
            )
