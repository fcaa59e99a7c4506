"""What a peer says of its checks is taken as a document, whatever it says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2pstore.peers.checks import Check, check_of, exit_code, failed, ok, warning

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["subject", "verdict", "detail", "advice", "code", "x"]), inner, max_size=6)
    ),
    max_leaves=12,
)


def test_a_check_survives_its_document() -> None:
    check = failed("a", "b", "c", 6)
    assert check_of(check.to_json()) == check


@given(JSON)
def test_any_document_is_a_check(document: object) -> None:
    check = check_of(document)
    assert isinstance(check, Check)
    assert check.verdict in {"ok", "warning", "failed"}
    assert 0 < check.code < 256


def test_the_first_failure_is_the_exit_status() -> None:
    assert exit_code([ok("a", ""), warning("b", "")]) == 0
    assert exit_code([ok("a", ""), failed("b", "", "", 6), failed("c", "", "", 9)]) == 6
