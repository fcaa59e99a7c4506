"""Measuring the transfer engine: a target and an initiator in processes of their own, against a bare socket loop.

``sweep`` makes the cases, ``run`` measures them and yields one ``Row`` for each. Nothing here prints.
"""

from __future__ import annotations

from engine.bench.cases import Case, Operation, sweep
from engine.bench.run import Engine, Plan, Row, run
from engine.bench.statistics import Latencies, Measurement

__all__ = ["Case", "Engine", "Latencies", "Measurement", "Operation", "Plan", "Row", "run", "sweep"]
