"""What `FakeImap` knows of NOTIFY (RFC 5465): which mailboxes a session wants to be told of."""

from dataclasses import dataclass

from tests.peers.model import BadSyntax, tokens

EVENTS = frozenset({"MESSAGENEW", "MESSAGEEXPUNGE", "FLAGCHANGE", "MAILBOXNAME", "SUBSCRIPTIONCHANGE"})


@dataclass(frozen=True, slots=True)
class Wanted:
    """A session's NOTIFY SET; `mailboxes` is None where it wants all."""

    mailboxes: frozenset[str] | None
    names: bool  # of mailboxes that are made, renamed or deleted
    status: bool  # of all of them at once

    def covers(self, mailbox: str) -> bool:
        return self.mailboxes is None or mailbox in self.mailboxes


def wanted(arguments: str) -> tuple[Wanted | None, set[str]]:
    """Read the arguments of NOTIFY; None is NONE. Also return all events asked for, in capitals."""
    words = tokens(arguments)
    if [word.upper() for word in words] == ["NONE"]:
        return None, set()
    if not words or words.pop(0).upper() != "SET":
        raise BadSyntax("NOTIFY takes SET or NONE")
    status = words[0].upper() == "STATUS"
    mailboxes: frozenset[str] | None = frozenset()
    events: set[str] = set()
    for group in _lists(words[1:] if status else words):
        kind, *rest = group
        asked = {str(event).upper() for event in rest[-1]}
        if asked - EVENTS:
            raise BadSyntax(f"unknown events {sorted(asked - EVENTS)}")
        events |= asked
        if str(kind).upper() == "MAILBOXES":
            mailboxes = frozenset(rest[0])
        elif str(kind).upper() == "PERSONAL" and asked != {"MAILBOXNAME"}:
            mailboxes = None
        elif str(kind).upper() not in {"PERSONAL", "SELECTED", "SELECTED-DELAYED"}:
            raise BadSyntax(f"unknown mailboxes {kind}")
    return Wanted(mailboxes, "MAILBOXNAME" in events, status), events


def _lists(words: list[str]) -> list[list[str | list[str]]]:
    """Nest `( a ( b c ) )`: groups of words and lists of words."""
    groups: list[list[str | list[str]]] = []
    inner: list[str] | None = None
    for word in words:
        match word, inner:
            case "(", _ if not groups or groups[-1][-1:] == [")"]:
                groups.append([])
            case "(", _:
                inner = []
            case ")", list():
                groups[-1].append(inner)
                inner = None
            case ")", None:
                groups[-1].append(")")
            case _, list():
                inner.append(word)
            case _:
                groups[-1].append(word)
    return [group[:-1] for group in groups]
