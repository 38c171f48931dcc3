"""A secret shows itself to nobody, and every place it is kept either gives it or says why not."""

import copy
import json
import os
import pickle
import shlex
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keyring
import keyring.backend
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

from idlepush.engine.credentials import MAX_BYTES, SOURCES, Secret, SecretSource, read_secret
from idlepush.errors import FailureClass, SecretUnreadable

CANARY = "canary-7f3a"

sources: TypeAdapter[SecretSource] = TypeAdapter(SecretSource)

ENVIRONMENT = {"PATH": os.defpath}


def source(written: object) -> SecretSource:
    return sources.validate_python(written)


async def refusal(written: object, environment: dict[str, str] | None = None) -> str:
    """Return the sentence of a reading that fails, having seen that the whole traceback keeps the secret."""
    with pytest.raises(SecretUnreadable) as caught:
        await read_secret(source(written), ENVIRONMENT | (environment or {}))
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None
    assert caught.value.failure_class is FailureClass.AUTHENTICATION
    sentence = str(caught.value)
    assert len(sentence.splitlines()) == 1
    return sentence


class TestSecret:
    @pytest.mark.parametrize(
        "show",
        [str, repr, format, "{}".format, "{!r:>40}".format, "{:>40}".format, "%s".__mod__, lambda it: f"{[it]}"],
    )
    def test_every_way_to_write_a_secret_writes_stars(self, show: Callable[[object], str]) -> None:
        shown = show(Secret(CANARY))
        assert "***" in shown
        assert CANARY not in shown

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_a_secret_is_not_pickled(self, protocol: int) -> None:
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps(Secret(CANARY), protocol)

    @pytest.mark.parametrize(
        "reach", [vars, json.dumps, lambda it: it.__getstate__(), lambda it: it.__dict__, lambda it: it.__reduce__()]
    )
    def test_what_lays_other_objects_open_fails_on_a_secret(self, reach: Callable[[Any], object]) -> None:
        with pytest.raises((TypeError, AttributeError)) as caught:
            reach(Secret(CANARY))
        assert CANARY not in str(caught.value)

    def test_a_secret_does_not_change(self) -> None:
        secret = Secret(CANARY)
        with pytest.raises(AttributeError):
            secret._text = "other"
        assert secret.reveal() == CANARY

    def test_a_copy_of_a_secret_is_itself(self) -> None:
        secret = Secret(CANARY)
        assert copy.copy(secret) is secret
        assert copy.deepcopy([secret])[0] is secret

    @given(st.text(), st.text())
    def test_secrets_are_equal_as_their_texts_are(self, one: str, other: str) -> None:
        assert (Secret(one) == Secret(other)) == (one == other)
        assert Secret(one) == Secret(one)
        assert hash(Secret(one)) == hash(Secret(one))

    def test_a_secret_equals_no_text(self) -> None:
        assert Secret(CANARY) != CANARY

    def test_a_model_dumps_and_prints_a_secret_as_stars(self) -> None:
        class Holder(BaseModel):
            secret: Secret

        holder = Holder.model_validate({"secret": CANARY})
        assert holder.secret.reveal() == CANARY
        assert CANARY not in f"{holder} {holder!r} {holder.model_dump()} {holder.model_dump_json()}"
        assert json.loads(holder.model_dump_json()) == {"secret": "***"}


WRITTEN: dict[str, object] = {
    "plain": CANARY,
    "file": {"file": "/run/secret"},
    "env": {"env": "ALICE"},
    "command": {"command": ["pass", CANARY]},
    "credential": {"credential": "alice"},
    "keyring": {"keyring": "idlepush/alice"},
}


class TestSources:
    @pytest.mark.parametrize("written", WRITTEN.values(), ids=WRITTEN)
    def test_a_source_shows_its_place_and_no_secret(self, written: object) -> None:
        found = source(written)
        shown = f"{found} {found!r} {found.model_dump()} {found.model_dump_json()} {sources.dump_json(found)!r}"
        assert CANARY not in shown
        assert found.place in shown

    @pytest.mark.parametrize("written", WRITTEN.values(), ids=WRITTEN)
    def test_equal_sources_are_written_alike(self, written: object) -> None:
        assert source(written) == source(written)
        assert hash(source(written)) == hash(source(written))
        assert source(written) != source("something else")

    def test_every_key_of_a_source_is_known_by_name(self) -> None:
        assert WRITTEN.keys() - {"plain"} == SOURCES.keys()

    @pytest.mark.parametrize(
        "written",
        [
            "",
            "two\nlines",
            7,
            None,
            [CANARY],
            {},
            {"text": CANARY},
            {"plain": CANARY},
            {"file": "x", "env": "X"},
            {"file": ""},
            {"file": "a\nb"},
            {"file": 7},
            {"env": ""},
            {"env": f"X={CANARY}"},
            {"command": []},
            {"command": [""]},
            {"command": f"echo {CANARY}"},
            {"command": ["echo", f"{CANARY}\0"]},
            {"credential": f"../{CANARY}"},
            {"credential": ".."},
            {"keyring": ""},
        ],
        ids=repr,
    )
    def test_what_is_no_source_is_refused_without_showing_it(self, written: object) -> None:
        with pytest.raises(ValidationError) as caught:
            source(written)
        assert CANARY not in str(caught.value.errors(include_url=False, include_input=False))


class TestReading:
    async def test_plain_text_is_the_secret(self) -> None:
        assert (await read_secret(source(CANARY), {})).reveal() == CANARY

    @pytest.mark.parametrize(
        ("content", "secret"),
        [
            (b"word", "word"),
            (b"word\n", "word"),
            (b"word\r\n", "word"),
            (b" word ", " word "),
            ("pässwörd\n".encode(), "pässwörd"),
        ],
    )
    async def test_a_file_gives_its_text_without_one_newline_at_its_end(
        self, tmp_path: Path, content: bytes, secret: str
    ) -> None:
        (tmp_path / "secret").write_bytes(content)
        assert (await read_secret(source({"file": str(tmp_path / "secret")}), {})).reveal() == secret

    async def test_a_rotated_file_is_read_anew(self, tmp_path: Path) -> None:
        file = tmp_path / "secret"
        written = source({"file": str(file)})
        file.write_text("old\n")
        assert (await read_secret(written, {})).reveal() == "old"
        file.write_text("new\n")
        assert (await read_secret(written, {})).reveal() == "new"

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"", "is empty"),
            (b"\n", "is empty"),
            (f"{CANARY}\nmore\n".encode(), "holds more than one line"),
            (f"{CANARY}\0".encode(), "holds more than one line"),
            (CANARY.encode() + b"\xff", "is not UTF-8 text"),
            (CANARY.encode() * MAX_BYTES, "is larger than 65536 bytes"),
        ],
        ids=["empty", "newline", "two lines", "nul", "latin-1", "huge"],
    )
    async def test_a_file_that_holds_no_secret_says_why(self, tmp_path: Path, content: bytes, reason: str) -> None:
        file = tmp_path / "secret"
        file.write_bytes(content)
        assert await refusal({"file": str(file)}) == f"the secret could not be read: file {file} {reason}"

    async def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        file = tmp_path / "none"
        assert f"file {file} is not readable (no such file or directory)" in await refusal({"file": str(file)})

    async def test_a_directory_is_no_secret(self, tmp_path: Path) -> None:
        assert "is not readable (is a directory)" in await refusal({"file": str(tmp_path)})

    async def test_a_variable_is_looked_up_in_the_environment_that_is_given(self) -> None:
        assert (await read_secret(source({"env": "ALICE"}), {"ALICE": CANARY})).reveal() == CANARY

    async def test_a_variable_that_is_not_set_is_named(self) -> None:
        assert await refusal({"env": "ALICE"}) == "the secret could not be read: environment variable ALICE is not set"

    async def test_a_credential_is_a_file_of_the_credentials_directory(self, tmp_path: Path) -> None:
        (tmp_path / "alice").write_text(f"{CANARY}\n")
        environment = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
        assert (await read_secret(source({"credential": "alice"}), environment)).reveal() == CANARY

    async def test_a_credential_without_systemd_says_so(self) -> None:
        assert "$CREDENTIALS_DIRECTORY is not set" in await refusal({"credential": "alice"})

    async def test_a_credential_that_was_not_passed_on_is_named(self, tmp_path: Path) -> None:
        sentence = await refusal({"credential": "alice"}, {"CREDENTIALS_DIRECTORY": str(tmp_path)})
        assert "systemd credential alice is not readable (no such file or directory)" in sentence


class TestCommands:
    @pytest.mark.parametrize("printed", ["word", r"word\n", r"word\r\n", r"word\nurl: example.org\n"])
    async def test_a_command_gives_its_first_line(self, printed: str) -> None:
        assert (await read_secret(source({"command": ["printf", printed]}), ENVIRONMENT)).reveal() == "word"

    async def test_no_shell_stands_between(self, tmp_path: Path) -> None:
        argument = f"$HOME;touch {tmp_path / 'made'}"
        assert (await read_secret(source({"command": ["printf", "%s", argument]}), ENVIRONMENT)).reveal() == argument
        assert not (tmp_path / "made").exists()

    async def test_a_command_runs_in_the_environment_that_is_given(self) -> None:
        written = source({"command": ["sh", "-c", 'printf "$ALICE"']})
        assert (await read_secret(written, ENVIRONMENT | {"ALICE": CANARY})).reveal() == CANARY

    async def test_a_failing_command_shows_its_exit_status_and_nothing_it_printed(self) -> None:
        sentence = await refusal({"command": ["sh", "-c", f"echo {CANARY}; echo {CANARY} >&2; exit 3"]})
        assert sentence == "the secret could not be read: command sh failed with exit status 3"

    async def test_a_command_that_is_not_there_is_named_without_its_arguments(self) -> None:
        sentence = await refusal({"command": ["no-such-program", CANARY]})
        assert "command no-such-program could not be started (no such file or directory)" in sentence

    async def test_a_command_that_prints_without_end_is_stopped(self) -> None:
        assert "command yes printed more than 65536 bytes" in await refusal({"command": ["yes", CANARY]})

    async def test_a_silent_command_gave_nothing(self) -> None:
        assert "command true is empty" in await refusal({"command": ["true"]})

    async def test_a_command_that_hangs_is_ended_at_its_time_limit(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("idlepush.engine.credentials.READ_LIMIT", 0.2)
        pid = tmp_path / "pid"
        sentence = await refusal({"command": ["sh", "-c", f"echo $$ > {shlex.quote(str(pid))}; exec sleep 1000"]})
        assert "command sh did not answer within" in sentence
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid.read_text()), 0)

    async def test_a_fifo_without_a_writer_is_left_at_the_time_limit(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("idlepush.engine.credentials.READ_LIMIT", 0.2)
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        try:
            assert "did not answer within" in await refusal({"file": str(fifo)})
        finally:
            fifo.open("w").close()  # lets the abandoned thread go


class Entries(keyring.backend.KeyringBackend):
    """A keyring of one entry, which is a real backend as far as `keyring` knows."""

    priority = 1

    def get_password(self, service: str, username: str) -> str | None:
        if username == "locked":
            raise RuntimeError(CANARY)
        return f"{CANARY} of {username} at {service}" if username.startswith("alice") else None

    def set_password(self, service: str, username: str, password: str) -> None:
        raise NotImplementedError

    def delete_password(self, service: str, username: str) -> None:
        raise NotImplementedError


@pytest.fixture
def _entries() -> Any:
    before = keyring.get_keyring()
    keyring.set_keyring(Entries())  # type: ignore[no-untyped-call]
    yield
    keyring.set_keyring(before)


@pytest.mark.usefixtures("_entries")
class TestKeyring:
    @pytest.mark.parametrize(
        ("entry", "secret"),
        [
            ("alice", f"{CANARY} of alice at idlepush"),
            ("mail/alice@example.org", f"{CANARY} of alice@example.org at mail"),
        ],
    )
    async def test_an_entry_is_a_username_of_a_service_or_of_idlepush(self, entry: str, secret: str) -> None:
        assert (await read_secret(source({"keyring": entry}), {})).reveal() == secret

    async def test_an_entry_that_is_not_there_is_named(self) -> None:
        assert "keyring entry mail/bob does not exist" in await refusal({"keyring": "mail/bob"})

    async def test_a_keyring_that_breaks_keeps_what_it_knew(self) -> None:
        assert "keyring entry locked is not readable (RuntimeError)" in await refusal({"keyring": "locked"})
