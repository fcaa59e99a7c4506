"""What a destination fills by itself: zeros, and chunks that equal one that it has already.

Each is hashed where it then lies, as what comes from a peer is. What turns out wrong is asked of peers after all.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence

from p2pstore.errors import Interrupted, SourceChanged
from p2pstore.objects.manifest import Chunk
from p2pstore.objects.repeats import ZEROS, Repeats
from p2pstore.objects.tasks import run_tasks
from p2pstore.pull.destination import Destination, HollowSink, Mismatch, RunSink
from p2pstore.pull.tuning import PIECE_BYTES

log = logging.getLogger(__name__)

AT_ONCE = 16
"""Chunks that one thread fills before it takes the next ones."""


def fill_zeros(
    destination: Destination, repeats: Repeats, cancelled: threading.Event, progress: Callable[[int], None]
) -> None:
    """Have zeros where they belong, as holes where there can be any. Raises ``Interrupted`` or ``StorageError``."""
    missing = [number for number in repeats.zeros if number not in destination.verified]
    _fill(destination, missing, _zeros, cancelled, progress)


def copy_repeats(
    destination: Destination,
    repeats: Repeats,
    cancelled: threading.Event,
    progress: Callable[[int], None],
    on_chunks: Callable[[range], None] = lambda _: None,
) -> int:
    """Copy what is missing and equals a chunk that is there; the bytes. Raises ``Interrupted`` or ``StorageError``."""
    verified = destination.verified
    missing = [n for n, first in repeats.firsts.items() if n not in verified and first in verified]

    def copy(chunk: Chunk, sink: RunSink) -> None:
        destination.copy(destination.manifest.chunk(repeats.firsts[chunk.number]), sink)

    return _fill(destination, missing, copy, cancelled, progress, on_chunks)


def _zeros(chunk: Chunk, sink: RunSink) -> None:
    done = sink.hole(chunk.length) if isinstance(sink, HollowSink) else 0
    while done < chunk.length:
        view = sink.buffer(min(len(ZEROS), chunk.length - done))
        view[:] = ZEROS[: len(view)]
        done += len(view)
        sink.filled(len(view))


def _fill(
    destination: Destination,
    numbers: Sequence[int],
    fill: Callable[[Chunk, RunSink], None],
    cancelled: threading.Event,
    progress: Callable[[int], None],
    on_chunks: Callable[[range], None] = lambda _: None,
) -> int:
    """Fill these chunks, on all cores; the bytes that are right."""
    if not numbers:
        return 0
    lock = threading.Lock()
    local = threading.local()
    total = 0

    def work(first: int, last: int, _: int) -> None:
        nonlocal total
        if not hasattr(local, "scratch"):
            local.scratch = memoryview(bytearray(PIECE_BYTES))
        for number in numbers[first:last]:
            if cancelled.is_set():
                raise Interrupted(detail="filling what need not be moved was cancelled")
            chunk = destination.manifest.chunk(number)
            run = range(number, number + 1)
            sink = destination.sink(run, local.scratch)
            try:
                fill(chunk, sink)
            except (Mismatch, SourceChanged) as error:
                log.info("chunk %d is not filled from here: %s", number, error)
                continue
            finally:
                sink.close()
            destination.keep(run)
            with lock:
                destination.verified.add(number)
                total += chunk.length
                progress(chunk.length)
            on_chunks(run)

    tasks = ((first, min(first + AT_ONCE, len(numbers)), 0) for first in range(0, len(numbers), AT_ONCE))
    run_tasks(tasks, work, os.cpu_count() or 1, cancelled)
    return total
