"""What fuzzing has found, each named for what must hold: the promises of its target (`targets.py`) hold for it."""

import pytest

from tests.fuzz.campaign import checked
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize(
    ("target", "octets"),
    [
        pytest.param(
            "patterns",
            b"*a*a*a*a*b\n%a%a%a%a%b\n\n" + b"a" * 20_000,
            id="a name that nearly matches many wildcards costs no power of its length",
        ),
        pytest.param("patterns", b"l!\nTrash\n!Trash\n\nINBOX", id="a plain name excluded behind itself is not chosen"),
        pytest.param(
            "view",
            b"".join(b"* 1 FETCH (UID %d FLAGS ())\r\n" % uid for uid in range(1, 40_000, 2)),
            id="flags pushed for every other message cost no square of their number",
        ),
    ],
)
def test_what_was_found_once_holds_now(target: str, octets: bytes) -> None:
    checked(TARGETS[target], octets)
