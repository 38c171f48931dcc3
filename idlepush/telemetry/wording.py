"""How an alert is worded: a title of one line, a body of plain text, both printable and bounded.

A server's words stand in the body. They can begin no line, reach no terminal raw, and call nobody: chat services take
a mention wherever it stands, so an `@` that begins a word is set apart from it, and so is `<!`.
"""

import re
from collections import Counter
from typing import Final

from idlepush.telemetry.desk import Alert, Case, Kind
from idlepush.telemetry.text import printable

NAMED: Final = 10
TITLE: Final = 160
NAME: Final = 100
REASON: Final = 300


def title(alert: Alert) -> str:
    """Return the one line that says what happened, to whom."""
    return printable(f"idlepush: {_subject(alert)} {_predicate(alert)}", most=TITLE)


def body(alert: Alert) -> str:
    """Return a line for each account, of the first ten."""
    lines = [_line(alert.kind, case) for case in alert.cases[:NAMED]]
    if len(alert.cases) > NAMED:
        lines.append(f"and {len(alert.cases) - NAMED} more")
    if len(alert.hosts) > 1:
        most = Counter(case.host for case in alert.cases).most_common(NAMED)
        lines.append("hosts: " + ", ".join(f"{_name(host)} ({count})" for host, count in most))
    return "\n".join(lines)


def spell_span(seconds: float) -> str:
    """Spell how long something took, in the two largest units: "45 s", "12 min", "1 h 5 min", "3 d 4 h"."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes = round(whole / 60)
    hours, days = minutes // 60, minutes // 1440
    if days:
        return f"{days} d {hours % 24} h" if hours % 24 else f"{days} d"
    if hours:
        return f"{hours} h {minutes % 60} min" if minutes % 60 else f"{hours} h"
    return f"{minutes} min"


def _subject(alert: Alert) -> str:
    if len(alert.cases) == 1:
        return f"{_name(alert.cases[0].account)} ({_name(alert.hosts[0])})"
    of = _name(alert.hosts[0]) if len(alert.hosts) == 1 else f"{len(alert.hosts)} hosts"
    return f"{len(alert.cases)} accounts of {of}"


def _predicate(alert: Alert) -> str:
    several = len(alert.cases) > 1
    if alert.kind is Kind.RESOLVED:
        longest = spell_span(max(case.seconds for case in alert.cases))
        return f"are back after up to {longest}" if several else f"is back after {longest}"
    classes = sorted({case.failure_class.value for case in alert.cases if case.failure_class is not None})
    which = f": {', '.join(classes[:3])}" if classes else ""
    return f"{'are' if several else 'is'} in trouble{which}"


def _line(kind: Kind, case: Case) -> str:
    span, reason = spell_span(case.seconds), _harmless(case.reason)
    if kind is Kind.RESOLVED:
        return f"{_name(case.account)}: back after {span}" + (f"; it was {reason}" if reason else "")
    return f"{_name(case.account)}: in trouble for {span}" + (f"; {reason}" if reason else "")


def _name(name: str) -> str:
    return printable(name, most=NAME)


def _harmless(text: str) -> str:
    return re.sub(r"(?<!\w)@(?=\w)|<(?=!)", lambda found: f"{found[0]} ", printable(text, most=REASON))
