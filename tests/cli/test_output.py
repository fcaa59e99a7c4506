from __future__ import annotations

import fcntl
import io
import os
import pty
import random
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from mooncake_cli import output
from mooncake_cli.output import Column, Mode, Output, use_color
from mooncake_cli.text import age, counted, printable, short_digest
from p2pstore.errors import HubNotRead, HubUnset, MooncakeError, ObjectNotFound, PackageMissing
from tests.cli.fake_agent import FakeAgent, get_result, info_answer, progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environ", "terminal", "color"),
    [
        ({"TERM": "xterm"}, True, True),
        ({"TERM": "xterm"}, False, False),
        ({"TERM": "dumb"}, True, False),
        ({}, True, False),
        ({"TERM": "xterm", "NO_COLOR": "1"}, True, False),
        ({"TERM": "xterm", "NO_COLOR": ""}, True, True),
        ({"FORCE_COLOR": "1"}, False, True),
        ({"FORCE_COLOR": "0"}, False, False),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, True, False),
    ],
)
def test_colour(environ: dict[str, str], terminal: bool, color: bool) -> None:
    assert use_color(Terminal() if terminal else io.StringIO(), environ) is color


def run(mode: Mode, verbose: bool, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    output = Output(mode, verbose=verbose)
    output.message("message")
    output.detail("detail")
    output.data({"a": "é"}, human="human", quiet=["q1", "q2"])
    output.done({"b": 1}, human="done", quiet=["d"])
    output.record({"c": 2}, "record")
    output.error(ObjectNotFound(name="x\x1b"))
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_the_modes(capsys: pytest.CaptureFixture[str]) -> None:
    error = "error: no object is named 'x\\x1b'\nhint: run 'mooncake list' to see what there is\n"
    assert run("human", False, capsys) == ("human\nrecord\n", f"message\ndone\n{error}")
    assert run("human", True, capsys) == ("human\nrecord\n", f"message\ndetail\ndone\n{error}")
    assert run("quiet", True, capsys) == ("q1\nq2\nd\nrecord\n", error)
    out, err = run("json", False, capsys)
    assert out == '{"a": "\\u00e9"}\n{"b": 1}\n{"c": 2}\n'
    assert err.startswith('message\n{"error": {"type": "ObjectNotFound"')


def test_a_table_that_fits_looks_as_rich_would_draw_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(7)
    alphabet = ["a", "bc", " ", "[red]", "世界", "e\u0301", "\U0001f600", "é"]
    for _ in range(40):
        columns = [
            Column("".join(chance.choices(alphabet, k=3)).strip(), right=chance.random() < 0.5) for _ in range(4)
        ]
        rows = [["".join(chance.choices(alphabet, k=chance.randrange(6))) for _ in columns] for _ in range(5)]
        rows = [[cell.strip() for cell in row] for row in rows]
        mine = Output().table(columns, rows)
        with monkeypatch.context() as patched:
            patched.setattr(Output, "_aligned", lambda *_: "")
            assert mine == Output().table(columns, rows)


def test_commands_that_are_advised_ask_the_store_that_was_asked() -> None:
    shown = Output(home="/h")
    shown.store = {"--master": "10.0.0.1", "--admin": None, "--tenant-id": "a b"}
    text = "run 'mooncake store why k', 'mooncake store give SIZE', 'mooncake store master' or 'mooncake list'"
    assert shown.commands(text) == (
        "run 'mooncake --home /h store why k --master 10.0.0.1 --tenant-id \"a b\"', "
        "'mooncake --home /h store give SIZE --master 10.0.0.1', 'mooncake --home /h store master' or "
        "'mooncake --home /h list'"
    )
    assert Output().commands(text) == text


@pytest.mark.parametrize("width", [1, 20, 40, 60, 80, 100, 300])
def test_no_figure_is_cut_and_no_column_left_out_on_a_narrow_terminal(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = [Column("NAME", style="bold"), *(Column(name, right=True) for name in ("SIZE", "FILES", "COMPLETE"))]
    columns += [Column("BY"), Column("HERE")]
    row = ["models/llama-3-70b", "300.0 MiB", "1", "2", "vm-f0bb", "/data/models/llama-3-70b"]
    monkeypatch.setattr(output, "_width", lambda: width)
    head, *lines = Output().table(columns, [row]).splitlines()
    assert head.split() == ["NAME", "SIZE", "FILES", "COMPLETE", "BY", "HERE"]
    assert max(map(len, [head, *lines])) <= width or len(lines) == 1
    shown = " ".join(lines)
    assert all(figure in shown for figure in row[1:5])
    assert all(letter in shown for letter in "models/llama-3-70b")


def test_tables_are_not_folded_where_no_terminal_shows_them(capsys: pytest.CaptureFixture[str]) -> None:
    text = Output().table([Column("A"), Column("B", right=True)], [("x" * 500, "1"), ("y", "22")])
    lines = text.splitlines()
    assert lines[1] == "x" * 500 + "   1"
    assert lines[2].endswith(" 22")


def test_texts() -> None:
    assert printable("a\tb\x9b\u202e\udcff é") == "a\\tb\\x9b\\u202e\\udcff é"
    assert short_digest("sha256:" + "ab" * 32) == "abababababab"
    assert [counted(n, "peer") for n in (0, 1, 2000)] == ["0 peers", "1 peer", "2,000 peers"]


@pytest.mark.parametrize(
    ("moment", "shown"),
    [
        (1000.0, "now"),
        (998, "2 s ago"),
        (940, "1 min 0 s ago"),
        ("1970-01-01T00:16:30Z", "10 s ago"),
        ("1970-01-01T00:16:30", "10 s ago"),
        ("yester\x1bday", "yester\\x1bday"),
    ],
)
def test_ages(moment: float | str, shown: str) -> None:
    assert age(moment, now=1000.5 if moment == 1000.0 else 1000) == shown


def on_terminal(arguments: list[str], environment: dict[str, str], cwd: Path, width: int = 100) -> str:
    """What the command shows on a terminal: all three streams are one."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "mooncake_cli", *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environment,
        cwd=cwd,
    )
    os.close(slave)
    shown = b""
    try:
        while True:
            try:
                block = os.read(master, 4096)
            except OSError:
                # The last writer has closed it.
                break
            if not block:
                break
            shown += block
    finally:
        process.wait(60)
        os.close(master)
    return shown.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("width", [100, 0])
def test_a_terminal_gets_a_progress_bar(
    agent: FakeAgent, environment: dict[str, str], tmp_path: Path, width: int
) -> None:
    steps = [
        progress(0, 0, peers=0),
        progress(0, 8 << 20, peers=1),
        {"event": "note", "text": "a note"},
        progress(4 << 20, 8 << 20, peers=2),
        progress(8 << 20, 8 << 20, peers=2),
    ]
    agent.answers["POST /v1/get"] = [*steps, get_result()]
    shown = on_terminal(["get", "a", "/d"], environment, tmp_path, width)
    assert "pulling:" in shown
    assert "2 peers" in shown
    assert "/8.0 MiB" in shown
    assert "a note\n" in shown
    assert "verified at /data/llama" in shown


def test_each_step_has_a_bar_of_its_own(agent: FakeAgent, environment: dict[str, str], tmp_path: Path) -> None:
    steps = [
        progress(1234, 0, step="listing", unit="files"),
        progress(900, 1000, step="comparing", unit="files"),
        progress(1 << 20, 8 << 20, peers=1),
        progress(0, 0, step="syncing 1,234 files", unit=""),
        progress(0, 0, step="syncing 1,234 files", unit=""),
    ]
    agent.answers["POST /v1/get"] = [*steps, get_result()]
    shown = on_terminal(["get", "a", "/d"], environment, tmp_path, 100)
    assert "listing: 1234 files [" in shown
    assert "comparing:  90%" in shown
    assert "900/1000" in shown
    assert "pulling:  12%" in shown
    assert "syncing 1,234 files [00:00]" in shown
    last = shown[shown.index("syncing") :]
    assert "%" not in last, "no share and no time left where nothing is counted"


@pytest.mark.parametrize("option", ["--json", "-q", "dumb"])
def test_other_modes_get_none(agent: FakeAgent, environment: dict[str, str], tmp_path: Path, option: str) -> None:
    agent.answers["POST /v1/get"] = [progress(1 << 20, 8 << 20, peers=1), get_result()]
    if option == "dumb":
        shown = on_terminal(["get", "a", "/d"], {**environment, "TERM": "dumb"}, tmp_path)
    else:
        shown = on_terminal(["get", "a", "/d", option], environment, tmp_path)
    assert "pulling" not in shown
    assert "\x1b" not in shown


def test_a_terminal_gets_colour_and_folded_names(agent: FakeAgent, environment: dict[str, str], tmp_path: Path) -> None:
    agent.answers["GET /v1/info"] = info_answer(files=[{"path": "x" * 300, "size": 1, "mode": 0o644, "chunks": 1}])
    shown = on_terminal(["info", "models/llama"], environment, tmp_path)
    assert "\x1b[" in shown
    assert shown.count("x" * 50) >= 3
    assert not any(line.count("x") > 100 for line in shown.splitlines())
    assert "\x1b[" not in on_terminal(["info", "models/llama"], {**environment, "NO_COLOR": "1"}, tmp_path)


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (PackageMissing(what="s3://", package="s3fs", install="mooncake-cli[origins]"), 'pip install "mooncake-cli['),
        (HubUnset(origin="hf://org/m"), "MOONCAKE_HF_UPSTREAM=https://huggingface.co"),
        (HubNotRead(file="model.safetensors"), "MOONCAKE_HF_UPSTREAM=https://huggingface.co"),
    ],
)
def test_no_help_is_named_where_something_else_helps(
    error: MooncakeError, advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Output().error(error, command="register")
    said = capsys.readouterr().err
    assert advice in said
    assert "--help" not in said
