"""The only place that prints.

Standard output carries data, standard error messages and progress. Three modes: ``human``, ``json`` (one JSON document
on standard output, messages still for people on standard error, no bar) and ``quiet`` (the datum alone: a
name, a path; no messages but errors).
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TextIO

from engine.errors import shell_word
from mooncake_cli.progress import BarProgress, LineProgress, Progress
from mooncake_cli.reader import ReaderGone, forget, is_there, lost
from mooncake_cli.text import printable
from p2pstore.errors import MooncakeError, UsageError, to_wire

Mode = Literal["human", "json", "quiet"]

UNBOUNDED_WIDTH = 100_000
"""Columns for a table that no terminal shows: nothing is folded, so that ``grep`` and ``awk`` see whole lines."""
LEAST_WIDTH = 12
"""Columns that a cell of text has at least where a table is folded to the terminal."""
GAP = 2
"""Columns between two of a table's."""


_STYLES = {"": "", "bold": "1"}
"""What a column's style is in a terminal's codes."""


def use_color(stream: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether to colour what goes to ``stream``: NO_COLOR, then FORCE_COLOR, then whether it is a capable terminal."""
    if environ.get("NO_COLOR"):
        return False
    if environ.get("FORCE_COLOR", "0") not in {"", "0"}:
        return True
    return stream.isatty() and environ.get("TERM", "dumb") != "dumb"


_COMMAND = re.compile(r"'mooncake (?!-)([^']+)'(?! there)")
"""A command in a sentence; of one that is to be run elsewhere it is said so."""

_ASK = ("--master", "--admin")
_STORE_OPTIONS = {
    **dict.fromkeys(("why", "list", "info", "remove"), (*_ASK, "--tenant-id")),
    **dict.fromkeys(("status", "top"), _ASK),
    **dict.fromkeys(("give", "put", "get"), ("--master",)),
}
"""By command of ``mooncake store``, the options that say which store is meant."""


class Column:
    """One column of a table: its heading, and whether its cells are numbers (aligned right)."""

    def __init__(self, heading: str, *, right: bool = False, style: str = "") -> None:
        self.heading = heading
        self.right = right
        self.style = style


class Output:
    """Where a command's result, messages and progress go."""

    def __init__(self, mode: Mode = "human", *, verbose: bool = False, home: str | None = None) -> None:
        """``home`` is what ``--home`` said: commands that people are told to run get it, too."""
        self.mode: Mode = mode
        self.verbose = verbose
        self.home = home
        self.store: dict[str, str | None] = {}
        """Which store is meant, by the options that said so."""
        self._progress = Progress()

    def data(self, document: object, *, human: str = "", quiet: Iterable[str] = ()) -> None:
        """The result of a command that asks: ``document`` as JSON, ``human`` text, or the ``quiet`` lines."""
        if self.mode == "json":
            self._write(sys.stdout, json.dumps(document, ensure_ascii=True) + "\n")
        elif self.mode == "quiet":
            self._write(sys.stdout, "".join(f"{line}\n" for line in quiet))
        elif human:
            self._write(sys.stdout, human if human.endswith("\n") else human + "\n")

    def done(self, document: object, *, human: str, quiet: Iterable[str] = ()) -> None:
        """The result of a command that acts: as ``data``, but what people read is a message."""
        if self.mode == "human":
            self.message(human)
        else:
            self.data(document, quiet=quiet)

    def record(self, document: object, text: str) -> None:
        """One of an endless row of results: a line of JSON, or of text."""
        self.line(json.dumps(document, ensure_ascii=True) if self.mode == "json" else text)

    def line(self, text: str) -> None:
        """One line on standard output, now: for output that does not end by itself."""
        self._write(sys.stdout, text + "\n")

    def still_read(self) -> None:
        """Raise ``ReaderGone`` if nobody reads standard output any more: what waits to print more can end then."""
        if not is_there(sys.stdout):
            raise ReaderGone

    def raw(self, data: bytes | memoryview) -> None:
        """Bytes on standard output. Raises ``ReaderGone``, or ``StorageError`` where they cannot be written."""
        try:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            forget(sys.stdout)
            raise ReaderGone from None
        except OSError as error:
            forget(sys.stdout)
            raise lost(error) from None

    def beside(self, document: object, *, human: str) -> None:
        """The result of a command whose standard output is somebody's data: on standard error."""
        if self.mode == "json":
            self._write(sys.stderr, json.dumps(document, ensure_ascii=True) + "\n")
        else:
            self.message(human)

    def message(self, text: str) -> None:
        """Something that people may want to know; nothing with ``--quiet``."""
        if self.mode != "quiet":
            text = self.commands(text)
            self._write(sys.stderr, text if text.endswith("\n") else text + "\n")

    def warning(self, text: str) -> None:
        """Something that people must know, whatever they asked for."""
        self._write(sys.stderr, f"warning: {self.commands(text)}\n")

    def commands(self, text: str) -> str:
        """A text, its commands for the agent of this home, and the store's for this master.

        Pasted as they are they must not end another one, nor ask another.
        """
        home = f" --home {shell_word(self.home)}" if self.home else ""

        def meant(found: re.Match[str]) -> str:
            words = found[1].split(" ")
            takes = _STORE_OPTIONS.get(words[1], ()) if words[0] == "store" and len(words) > 1 else ()
            told = ((option, self.store.get(option)) for option in takes)
            more = "".join(f" {option} {shell_word(value)}" for option, value in told if value)
            return f"'mooncake{home} {found[1]}{more}'"

        return _COMMAND.sub(meant, text)

    def wire(self, error: MooncakeError) -> dict[str, Any]:
        """An error for ``--json``, with the advice that people get."""
        wire = to_wire(error)
        return {**wire, "advice": self.commands(wire["advice"])}

    def detail(self, text: str) -> None:
        """A message for ``--verbose`` alone."""
        if self.verbose:
            self.message(text)

    def error(self, error: MooncakeError, *, command: str = "") -> None:
        """What went wrong, and what to do or to run next. ``command`` is the one that was run, whose help may help."""
        wire = self.wire(error)
        if command and type(error) is UsageError:
            wire["advice"] = f"see 'mooncake {command} --help'"
        if self.mode == "json":
            self._last_word(json.dumps({"error": wire}))
            return
        label = self._styled("error:", "1;31", sys.stderr)
        advice = str(wire["advice"])
        hint = f"\n{self._styled('hint:', '1;36', sys.stderr)} {printable(advice)}" if advice else ""
        self._last_word(f"{label} {printable(error)}{hint}")

    def plain_error(self, kind: str, text: str, exit_code: int, advice: str = "") -> None:
        """An error outside the tree: a usage error of the parser, an interruption, a defect.

        ``advice`` is for ``--json`` alone: it stands in what people read.
        """
        if self.mode == "json":
            wire = {"type": kind, "fields": {}, "message": text, "advice": advice, "exit_code": exit_code}
            self._last_word(json.dumps({"error": wire}))
        else:
            self._last_word(text)

    @contextlib.contextmanager
    def progress(self, verb: str, unit: str = "B") -> Iterator[Progress]:
        """A progress bar where standard error is a terminal and people read it; else a line now and then."""
        if self.mode == "human" and sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            self._progress = BarProgress(verb, sys.stderr, unit)
        elif self.mode != "quiet":
            self._progress = LineProgress(verb, self.message, unit)
        try:
            yield self._progress
        finally:
            self._progress.close()
            self._progress = Progress()

    def table(self, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> str:
        """An aligned table, as wide as the terminal where it is one. Cells must be printable already.

        One that is wider than the terminal is rich's work, which folds cells, and takes half a millisecond a row. Where
        even that would not do, since numbers are not folded nor words into letters, the terminal folds whole lines.
        """
        from rich.cells import cell_len  # noqa: PLC0415 - a part of rich that loads in no time

        widths = [cell_len(column.heading) for column in columns]
        for row in rows:
            widths = [max(width, cell_len(cell)) for width, cell in zip(widths, row, strict=True)]
        least = [
            width if column.right else min(width, max(LEAST_WIDTH, cell_len(column.heading)))
            for column, width in zip(columns, widths, strict=True)
        ]
        bound = _width()
        if sum(least) + GAP * len(least) > bound:
            bound = UNBOUNDED_WIDTH
        plain = all(column.style in _STYLES for column in columns)
        fits = sum(widths) + GAP * len(widths) <= bound
        if plain and fits and (aligned := self._aligned(columns, rows, widths)):
            return aligned
        from rich.table import Table  # noqa: PLC0415 - rich costs more than the whole start

        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, GAP, 0, 0))
        for column, width in zip(columns, least, strict=True):
            table.add_column(
                column.heading,
                justify="right" if column.right else "left",
                style=column.style,
                min_width=width,
                no_wrap=column.right,
                overflow="fold",
            )
        for row in rows:
            table.add_row(*(_as_text(cell) for cell in row))
        return self.render(table, bound)

    def _aligned(self, columns: Sequence[Column], rows: Sequence[Sequence[str]], widths: Sequence[int]) -> str:
        """The table, each cell in one line."""
        from rich.cells import cell_len  # noqa: PLC0415 - a part of rich that loads in no time

        def line(cells: Sequence[str], codes: Sequence[str]) -> str:
            parts = []
            for column, width, cell, code in zip(columns, widths, cells, codes, strict=True):
                blank = " " * (width - cell_len(cell))
                shown = self._styled(cell, code, sys.stdout) if code and cell else cell
                parts.append(blank + shown if column.right else shown + blank)
            return "  ".join(parts).rstrip() + "\n"

        codes = [_STYLES[column.style] for column in columns]
        head = line([column.heading for column in columns], [_STYLES["bold"]] * len(columns))
        return head + "".join(line(row, codes) for row in rows)

    def fields(self, pairs: Iterable[tuple[str, str]]) -> str:
        """Aligned ``key  value`` lines."""
        items = list(pairs)
        width = max((len(key) for key, _ in items), default=0)
        return "".join(f"{self._styled(key.ljust(width), '2', sys.stdout)}  {value}\n" for key, value in items)

    def render(self, renderable: Any, width: int | None = None) -> str:
        """A rich renderable as text for standard output, without trailing blanks. ``width``: not the terminal's."""
        from rich.console import Console  # noqa: PLC0415 - rich costs more than the whole start

        color = use_color(sys.stdout)
        buffer = io.StringIO()
        console = Console(
            file=buffer,
            width=_width() if width is None else width,
            force_terminal=color,
            no_color=not color,
            color_system="standard" if color else None,
            markup=False,
            emoji=False,
            highlight=False,
            legacy_windows=False,
        )
        console.print(renderable)
        return "".join(line.rstrip() + "\n" for line in buffer.getvalue().splitlines())

    @staticmethod
    def _styled(text: str, code: str, stream: TextIO) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if use_color(stream) else text

    def _last_word(self, text: str) -> None:
        """Why a command ends. Its status says so too, and stays as it is where nobody reads this."""
        with contextlib.suppress(ReaderGone):
            self._write(sys.stderr, text + "\n")

    def _write(self, stream: TextIO, text: str) -> None:
        try:
            if text and not self._progress.above(text):
                stream.write(text)
                stream.flush()
        except BrokenPipeError:
            forget(stream)
            raise ReaderGone from None
        except OSError as error:
            forget(stream)
            if stream is sys.stdout:  # a result that is lost is a failure; a message is none
                raise lost(error) from None


def _width() -> int:
    """Columns of standard output."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else UNBOUNDED_WIDTH


def _as_text(cell: str) -> Any:
    from rich.text import Text  # noqa: PLC0415 - rich costs more than the whole start

    return Text(cell)
