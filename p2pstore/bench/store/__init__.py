"""Measuring the pooled store: a master, somebody who gives memory and a client, ours and upstream's in turns.

``sweep`` makes the cases, ``run`` measures them and yields one ``Row`` for each. Nothing here prints.
"""

from __future__ import annotations

from p2pstore.bench.store.cases import Case, Operation, sweep
from p2pstore.bench.store.run import Engine, Plan, Row, Where, run

__all__ = ["Case", "Engine", "Operation", "Plan", "Row", "Where", "run", "sweep"]
