"""The man pages: of every command, not stale, and what man makes of them is what was meant."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from scripts.cli_model import walk
from scripts.generate_docs import MAN, STATUSES
from scripts.man_pages import pages, text, title

PAGES = pages(walk(), STATUSES)


def test_each_command_has_its_page_and_none_is_stale() -> None:
    assert set(PAGES) == {f"{title(command.path)}.1" for command in walk()}
    assert sorted(path.name for path in MAN.iterdir()) == sorted(PAGES)
    for name, content in PAGES.items():
        assert (MAN / name).read_text(encoding="utf-8") == content, "run 'python -m scripts.generate_docs'"


def test_what_is_seen_also_is_there() -> None:
    for name, content in PAGES.items():
        near = re.findall(r"\\fB(.*?)\\fR\(1\)", content.rpartition(".SH SEE ALSO")[2])
        assert near, name
        assert {f"{each.replace(chr(92), '')}.1" for each in near} <= set(PAGES) - {name}


def test_characters_mean_themselves() -> None:
    assert text("a-b") == r"a\-b"
    assert text(".x 'y' \\") == r"\&.x \(aqy\(aq \e"


@pytest.mark.parametrize("name", sorted(PAGES))
def test_groff_has_nothing_to_say(name: str, tmp_path: Path) -> None:
    groff = shutil.which("groff")
    if groff is None:
        pytest.skip("NOT THROUGH groff: it is not installed")
    command = [groff, "-man", "-Tutf8", "-Kutf8", "-ww", str(MAN / name)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, encoding="utf-8", timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_is_shown_is_what_was_written() -> None:
    man = shutil.which("man")
    if man is None:
        pytest.skip("NOT THROUGH man: it is not installed")
    environment = {**os.environ, "MANWIDTH": "1000", "LC_ALL": "C.UTF-8", "MAN_KEEP_FORMATTING": "", "TERM": "dumb"}
    for command in walk():
        page = str(MAN / f"{title(command.path)}.1")
        done = subprocess.run(
            [man, "-l", page], check=False, capture_output=True, text=True, env=environment, timeout=60
        )
        if "minimized" in done.stdout:
            pytest.skip("NOT THROUGH man: this container's man says that it has no pages")
        assert done.returncode == 0, done.stderr
        shown = re.sub(r"\s+", " ", re.sub(r".\x08", "", done.stdout))
        for option in command.options:
            assert option.spellings[-1] in shown
        for example in command.examples:
            assert re.sub(r"\s+", " ", example) in shown
        for paragraph in command.text.split("\n\n"):
            assert re.sub(r"\s+", " ", paragraph) in shown
