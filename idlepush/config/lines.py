"""Where each key of a TOML text stands: `tomllib` gives the values alone, and a mistake wants its line.

A path is the way `tomllib` nests: keys as text, places in arrays as numbers, so `("accounts", "alice", "hosts", 0)`.
The scanner reads only text that `tomllib` has accepted. That is why it judges nothing: it needs to know no more of TOML
than where a key ends, where a value ends, and which header it stands under.
"""

import tomllib
from bisect import bisect_left
from collections.abc import Mapping
from typing import Final

Path = tuple[str | int, ...]

_DEEPEST: Final = 60  # levels of brackets that are located; nothing of ours nests more than four


def locate(text: str) -> dict[Path, int]:
    """Return the line, counted from 1, on which each key and each element of *text* stands.

    A table stands where its header is, or where it is first spoken of when it has none. Every path of
    `tomllib.loads(text)` is there, down to a depth that no configuration of ours reaches.
    """
    return _Scanner(text).scan()


def line_of(lines: Mapping[Path, int], path: Path) -> int:
    """Return the line of *path*, or of the nearest parent that has one; the first line when none has."""
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return 1


class _Scanner:
    def __init__(self, text: str) -> None:
        # As tomllib does: it reads CR LF as LF, and no other CR is TOML.
        self._text = text.replace("\r\n", "\n")
        self._at = 0
        self._newlines = [at for at, letter in enumerate(self._text) if letter == "\n"]
        self._lines: dict[Path, int] = {}
        self._lengths: dict[Path, int] = {}  # of the arrays of tables met so far

    def scan(self) -> dict[Path, int]:
        table: Path = ()
        while self._skip(" \t\n"):
            if self._sees("["):
                table = self._header()
            else:
                self._pair(table, depth=0)
        return self._lines

    def _header(self) -> Path:
        line = self._line()
        is_array = self._sees("[[")
        self._at += 2 if is_array else 1
        keys = self._key()
        self._at += 2 if is_array else 1
        path: Path = ()
        for key in keys[:-1]:
            path = self._newest((*path, key))
            self._lines.setdefault(path, line)
        path = (*path, keys[-1])
        if is_array:
            self._lines.setdefault(path, line)
            self._lengths[path] = self._lengths.get(path, 0) + 1
            path = self._newest(path)
        self._lines[path] = line  # a header of its own outweighs a mention in another's
        return path

    def _newest(self, path: Path) -> Path:
        """Return the table that *path* means in a header: of an array of tables, its last one so far."""
        return (*path, self._lengths[path] - 1) if path in self._lengths else path

    def _pair(self, table: Path, *, depth: int) -> None:
        line = self._line()
        path = table
        for key in self._key():
            path = (*path, key)
            self._lines.setdefault(path, line)
        self._at += 1  # the equals sign
        self._skip(" \t")
        self._value(path, depth)

    def _key(self) -> list[str]:
        """Read a dotted key, and stand on what follows it."""
        keys = []
        while True:
            self._skip(" \t")
            start = self._at
            if self._sees('"') or self._sees("'"):
                self._string()
                # Its escapes are tomllib's business.
                keys.append(tomllib.loads(f"key = {self._text[start : self._at]}")["key"])
            else:
                self._until(" \t\n.=]")
                keys.append(self._text[start : self._at])
            self._skip(" \t")
            if not self._sees("."):
                return keys
            self._at += 1

    def _value(self, path: Path, depth: int) -> None:
        if self._sees('"') or self._sees("'"):
            self._string()
        elif self._sees("[") or self._sees("{"):
            if depth < _DEEPEST:
                self._container(path, depth + 1)
            else:
                self._closing_bracket()
        else:
            self._until(",]}#\n")  # a date may hold a space

    def _container(self, path: Path, depth: int) -> None:
        closing = "]" if self._sees("[") else "}"
        self._at += 1
        place = 0
        while self._skip(" \t\n,") and not self._sees(closing):
            if closing == "]":
                self._lines[*path, place] = self._line()
                self._value((*path, place), depth)
                place += 1
            else:
                self._pair(path, depth=depth)
        self._at += 1

    def _closing_bracket(self) -> None:
        """Go behind the bracket that closes the one here, locating nothing."""
        depth = 0
        while self._skip(" \t\n,"):
            if self._sees('"') or self._sees("'"):
                self._string()
                continue
            depth += (self._text[self._at] in "[{") - (self._text[self._at] in "]}")
            self._at += 1
            if depth == 0:
                return

    def _string(self) -> None:
        quote = self._text[self._at]
        fence = quote * 3 if self._sees(quote * 3) else quote
        self._at += len(fence)
        while self._at < len(self._text) and not self._sees(fence):
            self._at += 2 if quote == '"' and self._sees("\\") else 1
        self._at += len(fence)
        if len(fence) == 3:
            # Up to two quotes may stand before the closing three: of five, the last three close.
            while self._sees(quote):
                self._at += 1

    def _skip(self, blanks: str) -> bool:
        """Pass over *blanks*, and over comments where lines may end; tell whether anything is left."""
        while self._at < len(self._text):
            if self._sees("#") and "\n" in blanks:
                self._until("\n")
            elif self._text[self._at] in blanks:
                self._at += 1
            else:
                return True
        return False

    def _until(self, stops: str) -> None:
        while self._at < len(self._text) and self._text[self._at] not in stops:
            self._at += 1

    def _sees(self, what: str) -> bool:
        return self._text.startswith(what, self._at)

    def _line(self) -> int:
        return bisect_left(self._newlines, self._at) + 1
