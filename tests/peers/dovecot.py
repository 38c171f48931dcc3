"""A real Dovecot of its own: configuration, certificates, mail and log in one temporary directory, on loopback.

Runs as root (mail then belongs to an unprivileged user) or as any ordinary user (then everything does). Every user
name exists and has the password `PASSWORD`; nothing outside the directory is touched, save that root raises the
system's inotify limits, because a Dovecot without inotify looks for new mail only every thirty seconds.
"""

import grp
import imaplib
import os
import pwd
import re
import shutil
import signal
import socket
import ssl
import string
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import trustme

from tests.peers.ports import free_ports

PASSWORD: Final = "pass-of-everyone"  # an account of a throw-away server
COMPRESSES: Final = "protocol imap {\n  mail_plugins = zlib imap_zlib\n}\n"
"""For `extra`: COMPRESS=DEFLATE is offered."""
_INOTIFY: Final = {"max_user_instances": 16_384, "max_user_watches": 524_288}
_MAILDIR_EPOCH: Final = 1_700_000_000

_CONFIG: Final = string.Template("""\
base_dir = $directory/run
state_dir = $directory/state
log_path = $directory/dovecot.log
instance_name = idlepush-test
protocols = imap lmtp
listen = $listen
verbose_proctitle = yes
$service_users

ssl = yes
ssl_cert = <$directory/server.pem
ssl_key = <$directory/server.key
disable_plaintext_auth = no
auth_mechanisms = plain login
auth_failure_delay = 0
auth_username_format =
auth_username_chars =
passdb {
  driver = static
  args = password=$password
}
passdb {
  # Whoever comes this far had the wrong password; to be told so takes half a second without "nodelay".
  driver = static
  args = nopassword=yes nodelay=yes
  result_success = continue-fail
}
userdb {
  driver = static
  args = uid=$mail_uid gid=$mail_gid home=$directory/mail/%u allow_all_users=yes
}
first_valid_uid = 1
first_valid_gid = 0
mail_location = maildir:~/Maildir
mail_fsync = never
namespace inbox {
  inbox = yes
  mailbox Drafts {
    special_use = \\Drafts
  }
  mailbox Sent {
    special_use = \\Sent
  }
  mailbox Trash {
    special_use = \\Trash
  }
}

default_client_limit = 10000
default_process_limit = 4000
default_vsz_limit = 2G
service imap-login {
  inet_listener imap {
    port = $port
  }
  inet_listener imaps {
    port = $tls_port
    ssl = yes
  }
  service_count = 0
  process_min_avail = 1
  process_limit = 2
  $no_chroot
}
service lmtp {
  inet_listener lmtp {
    address = 127.0.0.1
    port = $lmtp_port
  }
  process_min_avail = 1
}
service anvil {
  # Without its penalty for wrong passwords a login is answered at once, however many failed before.
  unix_listener anvil-auth-penalty {
    mode = 0
  }
  $no_chroot
}
service stats {
  unix_listener stats-writer {
    mode = 0666
  }
  $no_chroot
}

protocol imap {
  mail_max_userip_connections = $max_userip_connections
  $capabilities
}
protocol lmtp {
  postmaster_address = postmaster@localhost
}
recipient_delimiter = +
lmtp_save_to_detail_mailbox = yes
lmtp_add_received_header = no
lmtp_hdr_delivery_address = none
lda_mailbox_autocreate = yes
$extra
""")


def missing() -> str | None:
    """Say how to get Dovecot where it is not installed; None where it is."""
    lacking = [part for part in ("imap", "lmtp") if not Path("/usr/lib/dovecot", part).exists()]
    if _binary("dovecot") and _binary("doveadm") and not lacking:
        return None
    return "no Dovecot here: apt-get install dovecot-core dovecot-imapd dovecot-lmtpd"


def plain_message(subject: str, *, to: str = "someone") -> bytes:
    """Spell a small message of one line."""
    return (
        f"From: Sender <sender@example.org>\r\nTo: {to}\r\nSubject: {subject}\r\n"
        f"Date: Sat, 21 Nov 2026 20:00:00 +0000\r\n\r\nThis is about {subject}.\r\n"
    ).encode()


class LmtpError(Exception):
    """The server did not take the message."""


class Lmtp:
    """A connection over which messages are delivered (RFC 2033), until it is closed."""

    def __init__(self, host: str, port: int, *, timeout: float = 30) -> None:
        self._socket = socket.create_connection((host, port), timeout=timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answers = self._socket.makefile("rb")
        try:
            self._expect(b"220")
            self._socket.sendall(b"LHLO localhost\r\n")
            self._expect(b"250")
        except BaseException:
            self.close()
            raise

    def deliver(self, user: str, raw: bytes, *, mailbox: str = "INBOX") -> None:
        """Deliver *raw* and return as soon as the server says that it has it.

        Line ends become CRLF and Dovecot puts a Return-Path on top. A mailbox other than INBOX is made if it is
        missing; its name may not hold what the local part of an address cannot spell.

        Raises:
            LmtpError: it was refused.
            OSError: the connection is gone; nothing was delivered unless the very last answer was lost.
        """
        self.announce(user, mailbox)
        self.send(raw)

    def announce(self, user: str, mailbox: str = "INBOX") -> None:
        """Go through the dialog up to the point where the message itself may be sent."""
        local_part = user if mailbox == "INBOX" else f'"{user}+{mailbox}"'
        self._socket.sendall(f"MAIL FROM:<sender@example.org>\r\nRCPT TO:<{local_part}>\r\nDATA\r\n".encode())
        for code in (b"250", b"250", b"354"):
            self._expect(code)

    def send(self, raw: bytes) -> None:
        """Send the message announced, and wait until the server has it."""
        lines = re.sub(rb"\r?\n", b"\r\n", raw)
        stuffed = re.sub(rb"(?m)^\.", b"..", lines)
        ending = b".\r\n" if stuffed.endswith(b"\n") else b"\r\n.\r\n"
        self._socket.sendall(stuffed + ending)
        self._expect(b"250")

    def close(self) -> None:
        """Close the connection."""
        self._answers.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _expect(self, code: bytes) -> None:
        while True:
            line = self._answers.readline()
            if not line:
                raise ConnectionResetError("the LMTP server closed the connection")
            if not line.startswith(code):
                raise LmtpError(line.decode("utf-8", "replace").strip())
            if line[3:4] != b"-":
                return


class Dovecot:
    """One Dovecot: use it as a context manager, or call `start` and at last `close`.

    `stop`, `start`, `restart` and `kill` keep the mail and the ports; `close` removes all.
    """

    def __init__(
        self,
        *,
        capabilities: str | None = None,
        extra: str = "",
        max_userip_connections: int = 10_000,
        listen: str = "127.0.0.1",
    ) -> None:
        """Configure a server.

        Args:
            capabilities: what it says it can, in place of all that it can (`imap_capability`).
            extra: more of `dovecot.conf`, behind everything else.
            max_userip_connections: `mail_max_userip_connections`.
            listen: the addresses of IMAP, separated by commas; LMTP is always on 127.0.0.1.
        """
        self.directory = Path(tempfile.mkdtemp(prefix="idlepush-dovecot-"))
        self.directory.chmod(0o755)  # the mail's owner has to get through
        self.host = listen.split(",", maxsplit=1)[0].strip()
        self.port = self.tls_port = self.lmtp_port = 0
        self.ca = trustme.CA()
        self.ca_pem = self.directory / "ca.pem"
        self._settings = {
            "listen": listen,
            "capabilities": f"imap_capability = {capabilities}" if capabilities else "",
            "extra": extra,
            "max_userip_connections": str(max_userip_connections),
        }
        self._mail_uid, self._mail_gid = _mail_owner()
        self._master: subprocess.Popen[bytes] | None = None
        self._lmtp: Lmtp | None = None
        self._lmtp_lock = threading.Lock()
        self._maildir_names = 0
        self._prepare()

    # Life

    def start(self) -> None:
        """Start the server and return when it greets."""
        if self._master is not None:
            raise RuntimeError("this Dovecot is already running")
        _raise_inotify_limits()
        while True:
            chosen = self.port == 0
            if chosen:
                self.port, self.tls_port, self.lmtp_port = free_ports(3, self.host)
                self._write_config()
            try:
                return self._launch()
            except _PortTakenError:
                if not chosen:
                    raise
                self.port = 0

    def stop(self, *, patience: float = 0) -> None:
        """End the server as an administrator does (SIGTERM), and return when all of its processes are gone.

        Its master takes about a second. Open sessions outlive it: Dovecot 2.3 says BYE to them after ten seconds,
        which they see where *patience* is longer; otherwise they are killed when it is over.
        """
        self._end(signal.SIGTERM, patience)

    def kill(self) -> None:
        """Kill the server and all of its processes at once (SIGKILL)."""
        self._end(signal.SIGKILL, patience=0)

    def restart(self, *, patience: float = 0) -> None:
        """Stop the server and start it again, on the same ports and mail."""
        self.stop(patience=patience)
        self.start()

    def close(self) -> None:
        """End the server and remove everything it had."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def is_running(self) -> bool:
        return self._master is not None and self._master.poll() is None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Mail

    def deliver(self, user: str, message: bytes | str, *, mailbox: str = "INBOX") -> None:
        """Deliver *message* over LMTP and return when the server has it; text is the subject of a small message.

        All calls share one connection; open a `Lmtp` of your own to deliver side by side.
        """
        raw = plain_message(message, to=user) if isinstance(message, str) else message
        with self._lmtp_lock:
            try:
                self._announced(user, mailbox).send(raw)
            except BaseException:
                self._hang_up()
                raise

    def lmtp(self) -> Lmtp:
        """Open a connection for delivering; the caller closes it."""
        return Lmtp("127.0.0.1", self.lmtp_port)

    def append_maildir(self, user: str, messages: Iterable[bytes], mailbox: str = "INBOX") -> int:
        """Put messages into a mailbox by writing its files, and return how many: the fast way to very many.

        Meant for the time before the user's first login; a server that has the mailbox open finds them a little
        later. Their UIDs follow the order given, their bytes stay as they are but for LF, which is served as CRLF.
        """
        count = 0
        cur = self._maildir(user, mailbox) / "cur"
        for raw in messages:
            self._maildir_names += 1
            served = len(raw) + raw.count(b"\n") - raw.count(b"\r\n")
            name = f"{_MAILDIR_EPOCH}.M{self._maildir_names:07d}.idlepush,S={len(raw)},W={served}:2,"
            descriptor = os.open(cur / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                os.fchown(descriptor, self._mail_uid, self._mail_gid)
                file.write(raw)
            count += 1
        return count

    def maildir_of(self, user: str) -> Path:
        """Return where the user's Maildir is, or will be."""
        return self.directory / "mail" / user / "Maildir"

    def hand_over(self, user: str) -> None:
        """Give the user's Maildir, which somebody else wrote, to the owner of all mail."""
        home = self.directory / "mail" / user
        for path in (home, *home.rglob("*")):
            with suppress(FileNotFoundError):  # it was renamed just now
                os.chown(path, self._mail_uid, self._mail_gid, follow_symlinks=False)

    # Looking at it from outside

    def imap(self, user: str, password: str = PASSWORD) -> imaplib.IMAP4:
        """Log in with the standard library's client, the independent reader; it is a context manager."""
        client = imaplib.IMAP4(self.host, self.port, timeout=30)
        # imaplib writes a literal behind its command; without this it would wait 40 ms for that to be acknowledged.
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            client.login(user, password)
        except BaseException:
            client.shutdown()
            raise
        return client

    def ssl_context(self) -> ssl.SSLContext:
        """Make a client's TLS context that trusts this server and nobody else."""
        return ssl.create_default_context(cafile=str(self.ca_pem))

    def doveadm(self, *arguments: str) -> str:
        """Run doveadm on this server and return what it prints."""
        done = subprocess.run(
            [_found("doveadm"), "-c", str(self._config_file), *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"doveadm {' '.join(arguments)} ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def log(self) -> str:
        """Return all that the server has logged so far."""
        path = self.directory / "dovecot.log"
        return path.read_text("utf-8", "replace") if path.exists() else ""

    # Inside

    @property
    def _config_file(self) -> Path:
        return self.directory / "dovecot.conf"

    def _prepare(self) -> None:
        for name in ("run", "state", "mail"):
            (self.directory / name).mkdir(mode=0o755)
        os.chown(self.directory / "mail", self._mail_uid, self._mail_gid)
        certificate = self.ca.issue_cert("localhost", "127.0.0.1", "::1")
        self.ca.cert_pem.write_to_path(self.ca_pem)
        key = self.directory / "server.key"
        certificate.private_key_pem.write_to_path(key)
        key.chmod(0o600)
        for part in certificate.cert_chain_pems:
            part.write_to_path(self.directory / "server.pem", append=True)

    def _write_config(self) -> None:
        self._config_file.write_text(
            _CONFIG.substitute(
                self._settings,
                directory=self.directory,
                password=PASSWORD,
                port=self.port,
                tls_port=self.tls_port,
                lmtp_port=self.lmtp_port,
                mail_uid=self._mail_uid,
                mail_gid=self._mail_gid,
                service_users="" if os.geteuid() == 0 else _service_users(),
                no_chroot="chroot =",
            )
        )

    def _launch(self) -> None:
        logged = len(self.log())
        with (self.directory / "stderr.txt").open("wb") as stderr:
            self._master = subprocess.Popen(
                [_found("dovecot"), "-F", "-c", str(self._config_file)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,  # its process group is what `kill` ends
            )
        try:
            self._await_greeting(deadline=time.monotonic() + 20)
        except BaseException as error:
            self.kill()
            said = self.log()[logged:] + (self.directory / "stderr.txt").read_text("utf-8", "replace")
            if "Address already in use" in said:
                raise _PortTakenError(said) from error
            raise RuntimeError(f"Dovecot does not start: {said.strip() or error}") from error

    def _await_greeting(self, *, deadline: float) -> None:
        master = self._master
        assert master is not None
        while master.poll() is None:
            with suppress(OSError), socket.create_connection((self.host, self.port), timeout=5) as dialed:
                if dialed.recv(4) == b"* OK":
                    return
            if time.monotonic() > deadline:
                raise TimeoutError("no greeting in 20 seconds")
            time.sleep(0.01)
        raise RuntimeError(f"it ended with status {master.returncode}")

    def _end(self, how: signal.Signals, patience: float) -> None:
        with self._lmtp_lock:
            self._hang_up()
        master, self._master = self._master, None
        if master is None:
            return
        with suppress(ProcessLookupError):
            master.send_signal(how)
        if how is signal.SIGTERM:
            with suppress(subprocess.TimeoutExpired):
                master.wait(timeout=15)
            _await_end_of_group(master.pid, within=patience)
        _kill_group(master.pid)
        master.wait()
        _await_end_of_group(master.pid, within=10)
        (self.directory / "run" / "master.pid").unlink(missing_ok=True)

    def _announced(self, user: str, mailbox: str) -> Lmtp:
        """Return the shared connection, ready for the message; a connection that died meanwhile is made anew."""
        if self._lmtp is not None:
            try:
                self._lmtp.announce(user, mailbox)
            except (OSError, LmtpError):  # 421: nothing was delivered for so long that the server hung up
                self._hang_up()
            else:
                return self._lmtp
        self._lmtp = self.lmtp()
        self._lmtp.announce(user, mailbox)
        return self._lmtp

    def _hang_up(self) -> None:
        if self._lmtp is not None:
            self._lmtp.close()
            self._lmtp = None

    def _maildir(self, user: str, mailbox: str) -> Path:
        home = self.directory / "mail" / user
        top = home / "Maildir"
        maildir = top if mailbox == "INBOX" else top / f".{mailbox}"
        for path in (home, top, maildir, *(maildir / part for part in ("cur", "new", "tmp"))):
            if not path.exists():
                path.mkdir(mode=0o700)
                os.chown(path, self._mail_uid, self._mail_gid)
        if maildir != top:
            (maildir / "maildirfolder").touch(mode=0o600)
            os.chown(maildir / "maildirfolder", self._mail_uid, self._mail_gid)
        return maildir


class _PortTakenError(Exception):
    """Somebody else was faster."""


def _binary(name: str) -> str | None:
    """Find a program; administrators' directories are not on every user's path."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")


def _found(name: str) -> str:
    path = _binary(name)
    if path is None:
        raise RuntimeError(missing())
    return path


def _mail_owner() -> tuple[int, int]:
    """Return whom the mail belongs to: Dovecot never lets root have mail."""
    if os.geteuid() != 0:
        return os.geteuid(), os.getegid()
    nobody = pwd.getpwnam("nobody")
    return nobody.pw_uid, nobody.pw_gid


def _service_users() -> str:
    user = pwd.getpwuid(os.geteuid()).pw_name
    group = grp.getgrgid(os.getegid()).gr_name
    return (
        f"default_internal_user = {user}\ndefault_internal_group = {group}\ndefault_login_user = {user}\n"
        "service lmtp {\n  user =\n}\n"
    )


def _raise_inotify_limits() -> None:
    for name, wanted in _INOTIFY.items():
        path = Path("/proc/sys/fs/inotify", name)
        with suppress(OSError, ValueError):
            if int(path.read_text()) < wanted:
                path.write_text(str(wanted))


def _kill_group(group: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _await_end_of_group(group: int, *, within: float) -> None:
    """Wait until no process of the group lives: their sockets must be closed before anyone connects again."""
    deadline = time.monotonic() + within
    while _is_alive(group) and time.monotonic() < deadline:
        time.sleep(0.01)  # they are not our children: there is nothing to wait on


def _is_alive(group: int) -> bool:
    """Tell whether a process of the group runs; one that waits to be reaped (by whoever, whenever) does not."""
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, member = status.read_text().rpartition(")")[2].split()[:3]
            if int(member) == group and state not in "ZX":
                return True
    return False
