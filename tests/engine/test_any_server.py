"""Any server, however free or false: once it is healed the mirror equals it, and the log has told it all exactly once.

Hypothesis draws what kind of server it is (whatever the RFCs allow), what other clients do, when time passes, and what
the server does wrong meanwhile (`faults.md`, group b). The real engine runs against it, in virtual time. At every step:

- the log, folded strictly, gives the mirror: no event lost, none doubled, none that says nothing new;
- nothing is stored as whole but what the server once held, byte for byte;
- the server is only looked at, and no bug is found.

And at the end, with the server healed: mirror and server are equal, and another look does nothing.

`IDLEPUSH_EXAMPLES=5000 pytest -k any_server` draws that many, at random; CI draws a few dozen, always the same.
"""

import asyncio
import hashlib
import os
from collections.abc import Coroutine
from typing import Any, TypeVar

import anyio
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from idlepush.engine.observations import BugFound, StateChanged
from idlepush.imap.types import MailboxName
from tests.engine.rig import Rig, mail
from tests.peers.fake import CAPABILITIES, CONDSTORE, QRESYNC, answer, bye, cut, mute, say
from tests.peers.fake_session import Fault
from tests.peers.liar import Liar
from tests.peers.replay import Replay, Told
from tests.peers.virtual import VirtualLoop

EXAMPLES = int(os.environ.get("IDLEPUSH_EXAMPLES", "0"))
BOXES = ("INBOX", "Work")
LONG = 30 * 3600.0
"""Seconds after which nothing that was learned of a sick server counts any more: latches, quarantine, distrust."""

T = TypeVar("T")

boxes = st.sampled_from(BOXES)
places = st.integers(0, 50)
flags = st.sets(st.sampled_from(["\\Seen", "\\Flagged", "\\Answered", "\\Deleted", "$Work", "Later"]), max_size=3)

natures = st.fixed_dictionaries(
    {
        "capabilities": st.sampled_from(
            [CAPABILITIES, CONDSTORE, QRESYNC, QRESYNC, "IMAP4rev1 AUTH=PLAIN", "IMAP4rev1 AUTH=PLAIN IDLE CONDSTORE"]
        )
    },
    optional={
        "silent_expunges": st.just(True),
        "expunged_body": st.sampled_from(["nil", "empty", "omitted", "stand-in", "kept"]),
        "push_uids": st.just(True),
        "pushes": st.sampled_from(["on DONE", "at once"]),
        "pushes_before_confirming": st.just(True),
        "fetch_order": st.just("down"),
        "lower_case": st.just(True),
        "body_spelling": st.sampled_from(["literal8", "quoted"]),
        "keepalive": st.sampled_from([20.0, 110.0]),
        "reverses_completions": st.just(True),
        "enables": st.sampled_from(["nothing", "mute"]),
        "message_limit": st.just(7),
        "over_limit": st.sampled_from(["newest", "oldest", "NO"]),
    },
)

POINTS = (
    "connect",
    "LOGIN",
    "EXAMINE",
    "IDLE",
    "in IDLE",
    "DONE",
    "UID FETCH",
    "in FETCH",
    "UID SEARCH",
    "NOOP",
    "STATUS",
)
FAULTS: dict[str, Fault] = {
    "reset": cut("reset"),
    "close": cut("close"),
    "stall": cut("stall"),
    "BYE": bye(),
    "NO [UNAVAILABLE]": answer("NO [UNAVAILABLE] later"),
    "NO [SERVERBUG]": answer("NO [SERVERBUG] oops"),
    "NO": answer("NO not now"),
    "BAD": answer("BAD what?"),
    "mute": mute,
    "flags of a message that is not there": say(b"* 4000 FETCH (FLAGS (\\Seen))\r\n"),
    "flags by number": say(b"* 1 FETCH (FLAGS (\\Draft))\r\n"),
    "an alien UID": say(b"* 1 FETCH (UID 777777 FLAGS (\\Seen) RFC822.SIZE 3 BODY[] {3}\r\nabc)\r\n"),
    "VANISHED of an alien": say(b"* VANISHED 777777,888888\r\n"),
    "EXISTS": say(b"* 3 EXISTS\r\n"),
    "a broken line": say(b"* 1 FETCH (((\r\n"),
    "a word nobody knows": say(b"* XYZZY (plugh)\r\n"),
}
LOGIN_REFUSED = {"NO", "BAD", "NO [SERVERBUG]"}
"""What LOGIN must not be answered with here: it means wrong credentials, and the account waits for a person."""

KNOBS: list[tuple[str, Any]] = [
    ("silent_expunges", True),
    ("expunged_body", "stand-in"),
    ("expunged_body", "empty"),
    ("expunged_body", "omitted"),
    ("fetch_twice", True),
    ("fetch_noise", b"* 2 FETCH (UID 4242 FLAGS (\\Seen))\r\n"),
    ("fetch_noise", b"* 1 FETCH (FLAGS (\\Flagged))\r\n"),
    ("pushes", "never"),
    ("pushes", "on DONE"),
    ("idle", "NO"),
    ("idle", "mute"),
    ("done", "mute"),
    ("idle_ends_after", 3.0),
    ("idle_cut_after", 9.0),
    ("idle_cut_how", "reset"),
    ("reverses_completions", True),
    ("highestmodseq", "still"),
    ("highestmodseq", "missing"),
    ("highestmodseq", "NOMODSEQ"),
    ("hides_vanished", True),
    ("enables", "nothing"),
    ("enables", "BAD"),
    ("capabilities", CAPABILITIES),
    ("capabilities", QRESYNC),
    ("message_limit", 5),
    ("uidvalidity_said", "missing"),
    ("exists_said", "often"),
    ("exists_said", "shrinks first"),
    ("exists_said", "huge first"),
]


class AnyServer(RuleBasedStateMachine):
    """One account with two mailboxes, from its first login on."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=lambda: VirtualLoop(real_limit=120))
        self.mails = 0
        self.ever: set[str] = set()
        self.replay = Replay()
        self.is_broken = False

    # What it is

    @initialize(nature=natures, counts=st.tuples(st.integers(0, 6), st.sampled_from([0, 1, 30])))
    def begin(self, nature: dict[str, Any], counts: tuple[int, int]) -> None:
        self.fake = Liar(**nature)
        self.fake.create("Work")
        for box, count in zip(BOXES, counts, strict=True):
            for _ in range(count):
                self.deliver(box)
        self.rig = Rig(self.fake, mailboxes=BOXES, audit_interval="6h")
        self.stop = anyio.Event()
        self.account = self.runner.get_loop().create_task(self.live())
        self.pass_by(0)

    async def live(self) -> None:
        async with self.rig.running():
            await self.stop.wait()

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(main)

    def pass_by(self, seconds: float) -> None:
        self.run(anyio.sleep(seconds))
        self.check()

    # What others do

    def deliver(self, box: str, *, flags: Any = (), gap: int = 0, raw: bytes | None = None) -> None:
        self.mails += 1
        raw = raw or mail(self.mails, size=self.mails % 7)
        self.ever.add(hashlib.sha256(raw).hexdigest())
        target = self.fake.mailbox(box)
        date = f"{self.mails % 28 + 1:02}-Nov-2026 20:00:00 +0000"
        self.fake.deliver(raw, flags, box, uid=min(target.uidnext + gap, 2**32 - 1000), internaldate=date)

    def uid_at(self, box: str, place: int) -> int | None:
        messages = self.fake.mailbox(box).messages
        return messages[place % len(messages)].uid if messages else None

    def act(self, what: str, box: str, place: int, flags: Any) -> None:
        uid = self.uid_at(box, place)
        match what:
            case "arrive":
                self.deliver(box, flags=flags)
            case "arrive far above":
                self.deliver(box, gap=1_000_000)
            case "flood":
                for _ in range(22 + place):
                    self.deliver(box)
            case "expunge" if uid:
                self.fake.expunge(uid, box)
            case "expunge and arrive" if uid:
                self.fake.expunge(uid, box)
                self.deliver(box, flags=flags)
            case "flag" if uid:
                self.fake.set_flags(uid, flags, box)
            case "move" if uid:
                message = self.fake.mailbox(box).message(uid)
                other = BOXES[1 - BOXES.index(box)]
                self.fake.expunge(uid, box)
                self.deliver(other, flags=message.flags, raw=message.raw)
            case "copy" if uid:
                self.deliver(box, raw=self.fake.mailbox(box).message(uid).raw)
            case "expunge all":
                for message in [*self.fake.mailbox(box).messages]:
                    self.fake.expunge(message.uid, box)

    acts = st.sampled_from(
        ["arrive", "expunge", "flag", "expunge and arrive", "move", "copy", "arrive far above", "flood", "expunge all"]
    )

    @rule(what=acts, box=boxes, place=places, flags=flags)
    def others_act(self, what: str, box: str, place: int, flags: Any) -> None:
        self.act(what, box, place, flags)
        self.check()

    @rule(what=acts, box=boxes, place=places, flags=flags, at=st.integers(1, 12))
    def others_act_at_a_command(self, what: str, box: str, place: int, flags: Any, at: int) -> None:
        left = at

        def on_command(_session: object, _command: object) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                self.act(what, box, place, flags)

        self.fake.on_command = on_command
        self.rig.watch.wake.set()
        self.pass_by(2)

    @rule(seconds=st.sampled_from([0, 0.001, 0.05, 1, 20, 290, 1000]))
    def time_passes(self, seconds: float) -> None:
        self.pass_by(seconds)

    @rule(box=boxes, to=st.sampled_from([5, 900, 1000, 5000, 2**32 - 1]), anew=st.booleans())
    def uidvalidity_changes(self, box: str, to: int, anew: bool) -> None:
        if self.fake.mailbox(box).uidvalidity != to:
            self.fake.renumber(box, to=to, anew=anew)
        self.check()

    # What goes wrong

    @rule(point=st.sampled_from(POINTS), fault=st.sampled_from(sorted(FAULTS)), times=st.sampled_from([1, 1, 2, 5]))
    def something_happens_at(self, point: str, fault: str, times: int) -> None:
        if not (point == "LOGIN" and fault in LOGIN_REFUSED):
            self.fake.at(point, FAULTS[fault], times=times)
        self.check()

    @rule(knob=st.sampled_from(KNOBS))
    def it_turns_false(self, knob: tuple[str, Any]) -> None:
        setattr(self.fake, *knob)
        self.check()

    @rule(how=st.sampled_from(["missing", "stale", "one", "ahead"]))
    def it_lies_about_uidnext(self, how: Any) -> None:
        self.fake.lie_about_uidnext(how)
        self.check()

    @rule(
        what=st.sampled_from(["omitted", "NO", "BAD", "cut", "size", "literal", "vanished", "lost"]),
        box=boxes,
        place=places,
    )
    def a_message_goes_bad(self, what: Any, box: str, place: int) -> None:
        uid = self.uid_at(box, place)
        if uid is None:
            return
        match what:
            case "omitted":
                self.fake.omitted_uids.add(uid)
            case "size":
                self.fake.announced_sizes.setdefault(uid, 5)
            case "literal":
                self.fake.literal_sizes[uid] = 100_000
            case "lost":
                self.fake.lost_changes.add(uid)
            case "vanished":
                self.fake.vanished_besides.add(uid)
            case _:
                self.fake.poison[uid] = what
        self.check()

    @rule(box=boxes)
    def it_forgets_its_mod_sequences(self, box: str) -> None:
        self.fake.lose_modseqs(box)
        self.fake.end_all()
        self.check()

    @rule(how=st.sampled_from(["reset", "close", "stall"]))
    def the_connection_is_cut(self, how: Any) -> None:
        self.fake.end_all(how)
        self.check()

    @rule(octets=st.integers(1, 4000), how=st.sampled_from(["reset", "close", "stall"]))
    def the_connection_is_cut_in_an_answer(self, octets: int, how: Any) -> None:
        self.fake.cut_after, self.fake.cut_how = self.fake.sent + octets, how
        self.check()

    @rule()
    def it_is_healed(self) -> None:
        self.fake.heal()
        self.check()

    # What must hold

    def check(self) -> None:
        """At any time: the log gives the mirror, which holds nothing that never was."""
        try:
            self.run(self.checked())
        except BaseException:
            self.is_broken = True
            raise

    async def checked(self) -> None:
        store, rows = self.rig.store, None
        while rows is None or await store.position() != self.replay.position:
            while found := await store.events(self.replay.position):
                for event in found:
                    self.replay.fold(event)
            rows = [row async for row in store.messages("alice")]
        told = self.replay.accounts.get("alice", Told())
        assert {row.id: (row.mailbox, row.uidvalidity, row.uid) for row in rows} == told.places
        assert {row.id: frozenset(row.flags) for row in rows} == told.flags
        assert {row.sha256 for row in rows if row.complete} <= self.ever, "something is stored that never was"
        assert not self.rig.observed(BugFound), [bug.trace for bug in self.rig.observed(BugFound)]
        assert self.fake.changes_by_clients == []

    def differing(self) -> dict[str, Any]:
        found = {}
        for box in BOXES:
            # What a server said of a size is kept, even if it says another one now.
            there = {uid: (flags, sha256) for uid, (flags, _, sha256) in self.rig.on_server(box).items()}
            here = {uid: (flags, sha256) for uid, (flags, _, sha256) in self.run(self.rig.in_mirror(box)).items()}
            if here != there:
                found[box] = {uid: (here.get(uid), there.get(uid)) for uid in here.keys() | there.keys()}
                found[box] = {uid: both for uid, both in found[box].items() if both[0] != both[1]}
        return found

    def teardown(self) -> None:
        try:
            if not self.is_broken and hasattr(self, "rig"):
                self.ends_well()
        finally:
            if hasattr(self, "rig"):
                self.stop.set()
                self.run(anyio.sleep(0))
                self.fake.end_all()
                self.account.cancel()
            self.runner.close()

    def ends_well(self) -> None:
        self.fake.heal()
        waited = 0.0
        for pause in (1.0, 10.0, 60.0, 600.0, 3600.0, 3600.0, 4000.0):
            self.rig.watch.wake.set()
            self.pass_by(pause)
            waited += pause
            if not self.differing():
                break
        else:
            self.pass_by(LONG)
        assert not self.differing(), self.described()
        self.pass_by(20)
        position = self.replay.position
        before = len(self.fake.commands)
        self.rig.watch.wake.set()
        self.pass_by(30)
        assert len(self.fake.commands) > before, self.described()
        events = [event.record() for event in self.run(self.rig.events())[position:]]
        assert [one for one in events if not str(one["type"]).startswith("account.")] == [], "another look wrote"

    def described(self) -> str:
        states = [f"{seen.state.value}: {seen.reason}" for seen in self.rig.observed(StateChanged)][-4:]
        commands = "\n".join(f"{command.time:.1f} {command}" for command in self.fake.commands[-25:])
        mirrors = [self.run(self.rig.store.mirror("alice", MailboxName.from_text(box))) for box in BOXES]
        return f"{self.differing()}\n{states}\n{mirrors}\n{commands}"


def test_any_server_is_mirrored_once_it_is_healed() -> None:
    run_state_machine_as_test(
        AnyServer,
        settings=settings(
            max_examples=EXAMPLES or 80,
            stateful_step_count=25,
            deadline=None,
            derandomize=not EXAMPLES,
            phases=[Phase.explicit, Phase.generate, *([Phase.shrink] if EXAMPLES else [])],
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
