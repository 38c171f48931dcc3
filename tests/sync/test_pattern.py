"""LIST patterns: a regular expression says the same, and no name makes the match slow."""

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idlepush.sync.pattern import matches


def by_expression(pattern: str, name: str, delimiter: str | None) -> bool:
    level = f"[^{re.escape(delimiter)}]*" if delimiter else ".*"
    wild = {"*": ".*", "%": level, "/": re.escape(delimiter or "/")}
    expression = "".join(wild.get(one, re.escape(one)) for one in pattern)
    return re.fullmatch(expression, name, re.DOTALL) is not None


@given(
    st.text("ab./*%", max_size=8), st.text("ab./*%\n", max_size=10), st.sampled_from([None, "/", ".", "*", "%", "a"])
)
@settings(max_examples=2000, deadline=None)
def test_a_pattern_matches_what_its_regular_expression_matches(pattern: str, name: str, delimiter: str | None) -> None:
    assert matches(pattern, name, delimiter) == by_expression(pattern, name, delimiter)


@pytest.mark.parametrize("pattern", ["*a*a*a*a*a*b", "%a%a%a%a%a%b", "*%*%*%*%b", "*" * 1000 + "b"])
def test_many_wildcards_cost_no_power_of_the_names_length(pattern: str) -> None:
    began = time.thread_time()
    assert not matches(pattern, "a" * 20_000, "/")
    # Ten times the aim; with a regular expression it is years.
    assert time.thread_time() - began < 1
