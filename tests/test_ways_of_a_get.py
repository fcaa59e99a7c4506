"""The benchmark of the ways of a get runs, compares what it says it does, and sorts perf's stacks."""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "ways_of_a_get.py"


@pytest.fixture(scope="module")
def ways() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ways_of_a_get", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPT.parent)  # as for a script
        spec.loader.exec_module(module)
    return module


def test_every_way_to_every_place_is_measured(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--mib", "16", "--rounds", "1", "--only", "shards,memory", "--json"]
    done = subprocess.run([*command, "--disk", str(tmp_path)], check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    expected = {(place, transport) for place in ("shards", "memory") for transport in ("tcp", "local")}
    assert {(row["place"], row["transport"]) for row in rows} == expected
    for row in rows:
        assert row["best"] in row["ways"]
        assert "chosen" in row["ways"]
        assert row["best"] != "chosen"
        assert row["ratio"] > 0
        assert ("cp" in row["ways"]) == ((row["place"], row["transport"]) == ("shards", "local"))
        assert all(figures["seconds"] > 0 for figures in row["ways"].values())
    assert list(tmp_path.iterdir()) == []


def test_the_choice_is_compared_with_the_best_by_hand(ways: ModuleType) -> None:
    seconds = {"chosen": [3.0, 2.0, 9.0], "a": [4.0, 4.0, 4.0], "b": [1.5, 1.5, 9.0], "cp": [0.1, 0.1, 0.1]}
    found = {name: [{"seconds": s, "processor": 1.0} for s in each] for name, each in seconds.items()}
    row = ways.rated("file", "tcp", found)
    assert (row["best"], row["ratio"]) == ("b", 0.5)
    assert row["ways"]["chosen"] == {"seconds": 3.0, "processor": 1.0}


@pytest.mark.parametrize("text", ["", "0", "4,", "4;8", "-1"])
def test_what_are_no_counts_is_refused(ways: ModuleType, text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="are no counts, such as 4,8"):
        ways.as_counts(text)
    assert ways.as_counts("4,8") == [4, 8]


@pytest.mark.parametrize("cores", [1, 2, 16, 200])
def test_more_cores_are_tried_with_more_connections(ways: ModuleType, cores: int) -> None:
    counts = {way.connections for way in ways.ways(cores)}
    assert {1, 2, 3, 4} <= counts
    assert (12 in counts) == (cores >= 12)
    assert [way.connections for way in ways.ways(cores, [5, 7])] == [5, 7]


@pytest.mark.parametrize(
    ("stack", "kind"),
    [
        ("_copy_to_iter|tcp_recvmsg_locked|sock_recvmsg", "copy out of the kernel"),
        ("tcp_ack|tcp_recvmsg_locked|sock_recvmsg", "TCP of the receiver: acknowledgements, buffers"),
        ("tcp_ack|splice_to_socket|do_sendfile", "send: sendfile, and TCP's work for the receiver"),
        ("copy_folio_from_iter_atomic|generic_perform_write|vfs_write", "copy into the file"),
        ("xas_load|shmem_write_begin|generic_perform_write", "pages of the file: found, charged, listed"),
        ("clear_page_erms|handle_mm_fault|asm_exc_page_fault", "first touch of memory"),
        ("XXH3_update_avx512 (_xxhash.so)|PyObject_Call (libpython3.11.so)", "hash"),
        ("_PyEval_EvalFrameDefault (libpython3.11.so)|start_thread (libc.so.6)", "Python"),
        ("finish_task_switch|schedule|futex_wait|libpython", "waits and wake-ups"),
        ("something|nobody (knows.so)", "other"),
    ],
)
def test_what_a_sample_counts_as(ways: ModuleType, stack: str, kind: str) -> None:
    assert ways.kind_of(stack.split("|")) == kind


def test_stacks_are_parted_by_empty_lines(ways: ModuleType) -> None:
    assert list(ways.stacks(["", " a (x)", " b (y)", "", "", " c (z)"])) == [["a (x)", "b (y)"], ["c (z)"]]
