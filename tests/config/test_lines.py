"""Every key that tomllib finds is located, on the line where it stands."""

import tomllib
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idlepush.config.lines import Path, line_of, locate


def paths(value: object, path: Path = ()) -> Iterator[Path]:
    """Every path of what tomllib made of a text."""
    if path:
        yield path
    if isinstance(value, dict):
        for key, inside in value.items():
            yield from paths(inside, (*path, key))
    elif isinstance(value, list):
        for place, inside in enumerate(value):
            yield from paths(inside, (*path, place))


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        pytest.param("a = 1\nb = 2", {("a",): 1, ("b",): 2}, id="pairs"),
        pytest.param("\n# a = 0\n\n  a = 1 # b = 2\n", {("a",): 4}, id="comments and blank lines"),
        pytest.param("a.b.c = 1", {("a",): 1, ("a", "b"): 1, ("a", "b", "c"): 1}, id="dotted keys"),
        pytest.param("a . 'b' = 1", {("a",): 1, ("a", "b"): 1}, id="blanks around the dot"),
        pytest.param(
            '"a.b" = 1\n"c\\u0041" = 2\n\'d"\' = 3\n"" = 4',
            {("a.b",): 1, ("cA",): 2, ('d"',): 3, ("",): 4},
            id="quoted keys",
        ),
        pytest.param(
            "[a]\n\nb = 1\n[a.c]\nd = 2", {("a",): 1, ("a", "b"): 3, ("a", "c"): 4, ("a", "c", "d"): 5}, id="tables"
        ),
        pytest.param(
            "[a.b]\nc = 1\n[a]\nd = 2",
            {("a",): 3, ("a", "b"): 1, ("a", "b", "c"): 2, ("a", "d"): 4},
            id="a table's own header outweighs its child's",
        ),
        pytest.param('[ a . "b]" ] # c\nd = 1', {("a",): 1, ("a", "b]"): 1, ("a", "b]", "d"): 2}, id="loose headers"),
        pytest.param(
            "a = { b = 1, c.d = { e = '}' } }\nf = 1",
            {("a",): 1, ("a", "b"): 1, ("a", "c"): 1, ("a", "c", "d"): 1, ("a", "c", "d", "e"): 1, ("f",): 2},
            id="inline tables",
        ),
        pytest.param(
            "a = [ # ]\n  1,\n\n  { b = 2 }, [ 3,\n 4 ],\n]\nc = 5",
            {("a",): 1, ("a", 0): 2, ("a", 1): 4, ("a", 1, "b"): 4, ("a", 2): 4, ("a", 2, 0): 4, ("a", 2, 1): 5}
            | {("c",): 7},
            id="arrays over several lines",
        ),
        pytest.param('a = """\n[b]\nc = 1\n\\""" # """\nd = 2', {("a",): 1, ("d",): 5}, id="multi-line text"),
        pytest.param("a = '''\nb = 1\n\\'''\nc = 2", {("a",): 1, ("c",): 4}, id="multi-line literal text"),
        pytest.param(
            'a = """x"""""\nb = """"""\nc = \'\'\nd = 1',
            {("a",): 1, ("b",): 2, ("c",): 3, ("d",): 4},
            id="quotes beside quotes",
        ),
        pytest.param('a = "\\\\"\nb = "\\"" # "\nc = \'\\\'', {("a",): 1, ("b",): 2, ("c",): 3}, id="backslashes"),
        pytest.param("a = 1979-05-27 07:32:00\nb = -inf\nc = 1e3", {("a",): 1, ("b",): 2, ("c",): 3}, id="bare values"),
        pytest.param(
            "[[a]]\nb = 1\n[[a]]\nb = 2\n[a.c]\nd = 3\n[[a.e]]\n[[a.e]]\nf = 4",
            {("a",): 1, ("a", 0): 1, ("a", 0, "b"): 2, ("a", 1): 3, ("a", 1, "b"): 4, ("a", 1, "c"): 5}
            | {("a", 1, "c", "d"): 6, ("a", 1, "e"): 7, ("a", 1, "e", 0): 7, ("a", 1, "e", 1): 8}
            | {("a", 1, "e", 1, "f"): 9},
            id="arrays of tables",
        ),
        pytest.param(
            "a = 1\r\n\r\n[b]\r\nc = '''\r\n'''\r\nd = 2\r\n",
            {("a",): 1, ("b",): 3, ("b", "c"): 4, ("b", "d"): 6},
            id="lines of windows",
        ),
        pytest.param("", {}, id="nothing"),
    ],
)
def test_each_key_and_element_is_on_its_line(text: str, lines: dict[Path, int]) -> None:
    assert set(paths(tomllib.loads(text))) == set(lines)
    assert locate(text) == lines


def test_what_cannot_be_located_stands_where_its_nearest_parent_does() -> None:
    lines = locate("a = 1\n\n[b.c]\nd = [1]")
    assert line_of(lines, ("b", "c", "missing")) == 3
    assert line_of(lines, ("b", "c", "d", 7, "x")) == 4
    assert line_of(lines, ("nowhere",)) == 1
    assert line_of({}, ()) == 1


def test_brackets_in_brackets_end_the_locating_and_not_the_program() -> None:
    depth = 200
    lines = locate(f"a = {'[' * depth} ']', \"[\", {'{}'} {']' * depth}\nb = 1")
    assert lines["b",] == 2


# Texts of TOML in which each key is one of its kind, so that its line can be seen in the text.
_values = st.recursive(
    st.sampled_from(["1", "-1.5e3", "true", '"x # y"', "'\\'", '"\\""', '""', "''", "1979-05-27 07:32:00"])
    | st.sampled_from(['"""\n]} x = 1\n"""', "'''\n[x]\n'''", '"""a\\"""b"""""', '""""""', "'''''''"]),
    lambda inside: st.builds(
        lambda elements, gap: f"[{gap}{f',{gap}'.join(elements)}{gap}]",
        st.lists(inside, max_size=3),
        st.sampled_from(["", " ", "\n", " # ], x = 1\n  "]),
    ),
    max_leaves=6,
)


@st.composite
def documents(draw: st.DrawFn) -> str:
    number = 0

    def key() -> str:
        nonlocal number
        number += 1
        style = draw(st.sampled_from(["k{}", '"k {}"', "'k.{}'", '"k]{}"', "d{}.'e'", " s{} . t "]))
        return style.format(number)

    def pair() -> str:
        if draw(st.integers(0, 4)) == 0:
            inside = ", ".join(f"{key()} = {draw(_values)}" for _ in range(draw(st.integers(0, 3))))
            # An inline table has to stand on one line; TOML 1.0 allows breaks only inside its values.
            return f"{key()} = {{ {inside} }}"
        return f"{key()} = {draw(_values)}"

    lines = [pair() for _ in range(draw(st.integers(0, 3)))]
    arrays: list[str] = []
    for _ in range(draw(st.integers(0, 4))):
        kind = draw(st.sampled_from(["[{}]", "[[{}]]", "again", "beneath"]))
        if kind in {"again", "beneath"} and arrays:
            name = draw(st.sampled_from(arrays))
            lines.append(f"[[{name}]]" if kind == "again" else f"[{name}.{key()}]")
        else:
            name = key()
            is_array = kind == "[[{}]]"
            lines.append((kind if is_array else "[{}]").format(name))
            if is_array:
                arrays.append(name)
        lines.append(draw(st.sampled_from(["", "# [x]", "  "])))
        lines += [pair() for _ in range(draw(st.integers(0, 3)))]
    return draw(st.sampled_from(["\n", "\r\n"])).join(lines)


@given(documents())
def test_every_path_of_every_text_is_located_where_its_key_is_written(text: str) -> None:
    lines = locate(text)
    assert set(lines) == set(paths(tomllib.loads(text)))
    written = text.split("\n")
    for path, line in lines.items():
        assert 1 <= line <= len(written)
        if isinstance(path[-1], str):
            assert path[-1] in written[line - 1]


SAMPLE = """\
title = "x"
[store]
url = "sqlite:///mirror.db" # beside
[defaults]
mailboxes = [
  "INBOX", # first
  '\\Sent',
]
[accounts.alice]
password = { command = ["pass", "mail/alice"] }
note.a = 'b'
text = \"\"\"
[accounts.bob]
\"\"\"
[[accounts."b o b".list]]
x = [[1, 2], { y = 3 }]
[[accounts."b o b".list]]
"""


@settings(max_examples=500)
@given(
    st.lists(
        st.tuples(st.integers(0, len(SAMPLE)), st.integers(0, 12), st.sampled_from([*"[]{}\"'=.,#\n\\ x"])),
        min_size=1,
        max_size=2,
    )
)
def test_a_broken_text_that_is_still_toml_is_located_whole(cuts: list[tuple[int, int, str]]) -> None:
    text = SAMPLE
    for at, length, instead in cuts:
        text = text[:at] + instead + text[at + length :]
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return  # nobody asks where its keys are
    assert set(locate(text)) == set(paths(tables))
