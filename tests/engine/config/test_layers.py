"""What is taken later wins, and each value knows where it came from."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.config.layers import DEFAULT_ORIGIN, SECRET_SHOWN, Layers, absolute, current_directory, of_variable, shown
from engine.errors import BadConfig


def test_the_last_layer_wins_and_is_the_origin() -> None:
    layers = Layers({"a": 1, "b": 2})
    layers.put("a", "/etc/x", 10)
    layers.take("a", of_variable("X_A"), lambda: int("20"))
    assert layers.values == {"a": 20, "b": 2}
    assert layers.origins == {"a": "environment X_A", "b": DEFAULT_ORIGIN}


def test_a_value_that_is_not_understood_names_its_origin_and_changes_nothing() -> None:
    layers = Layers({"a": 1})
    with pytest.raises(BadConfig, match="environment X_A: 'x' is no number"):
        layers.take("a", of_variable("X_A"), _raise)
    assert layers.values == {"a": 1}


def _raise() -> int:
    raise ValueError("'x' is no number")


def test_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/u")
    base = Path("/base")
    assert [absolute(text, base) for text in ("x", "../x", "/x", "~/x")] == [
        Path("/base/x"), Path("/x"), Path("/x"), Path("/home/u/x"),
    ]  # fmt: skip


def test_what_is_shown() -> None:
    assert [shown(value) for value in (None, 1, True, "x", Path("/x"))] == [None, 1, True, "x", "/x"]
    assert shown("hidden", secret=True) == SECRET_SHOWN
    assert shown(None, secret=True) is None


def test_the_home_of_nobody_is_no_path() -> None:
    with pytest.raises(ValueError, match="'~no-such-user-here/x' is nobody's home directory"):
        absolute("~no-such-user-here/x", Path("/base"))
    assert absolute("./~x", Path("/base")) == Path("/base/~x")


def test_a_working_directory_that_was_removed_holds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    assert current_directory() == tmp_path / "gone"
    (tmp_path / "gone").rmdir()
    assert current_directory() == Path("/")
