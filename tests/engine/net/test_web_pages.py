"""Requests that a browser makes for pages of strangers."""

from __future__ import annotations

import pytest

from engine.net.web_pages import is_a_pages, is_called_ours, refusal


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("127.0.0.1:7400", True),
        ("127.0.0.1", True),
        ("127.1.2.3:1", True),
        ("localhost:7400", True),
        ("LocalHost.", True),
        ("hub.localhost:80", True),
        ("[::1]:7400", True),
        ("[::ffff:127.0.0.1]:7400", True),
        ("node7.cluster:7400", True),
        ("evil.example:7400", False),
        ("127.0.0.1.evil.example:7400", False),
        ("localhost.evil.example", False),
        ("10.0.0.1:7400", False),
        ("0.0.0.0:7400", False),
        ("node7:7400", False),
        ("a b", False),
        ("127.0.0.1:7400:1", False),
        ("user@127.0.0.1", False),
    ],
)
def test_what_this_host_is_called(host: str, *, ours: bool) -> None:
    assert is_called_ours(host, "node7.cluster") is ours


def test_what_a_browser_asks_for_a_page() -> None:
    assert not is_a_pages({})
    assert not is_a_pages({"Sec-Fetch-Site": "none"})
    assert is_a_pages({"Sec-Fetch-Site": "cross-site"})
    assert is_a_pages({"Sec-Fetch-Site": "same-site"})
    assert is_a_pages({"Origin": "null"})


LOCAL = {"Host": "127.0.0.1:8080"}


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS"])
def test_on_loopback_nobody_is_answered_who_calls_us_by_another_name(method: str) -> None:
    assert "evil.example" in refusal(method, {"Host": "evil.example:8080"}, loopback=True)
    assert refusal(method, LOCAL, loopback=True) == ""
    assert refusal(method, {}, loopback=True) == "", "no browser"
    assert refusal(method, {"Host": "Node7:8080"}, loopback=True, names=("node7",)) == ""
    assert refusal(method, {"Host": "evil.example:8080"}, loopback=False) == "", "any name may mean it"


@pytest.mark.parametrize("loopback", [True, False])
def test_nothing_is_changed_for_a_page(*, loopback: bool) -> None:
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            assert "web pages" in refusal(method, {**LOCAL, **headers}, loopback=loopback)
        assert refusal("GET", {**LOCAL, **headers}, loopback=loopback) == "", "as a link to it"
