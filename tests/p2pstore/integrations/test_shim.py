"""Upstream's modules are ours where there is no wheel, or where ours are asked for; in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from p2pstore.integrations import upstream_engine, upstream_store

ROOT = Path(__file__).resolve().parents[3]

WHERE = "import mooncake.store as s, mooncake.engine as e; print(s.MooncakeDistributedStore.__module__, e.TransferEngine.__module__)"
OURS = "p2pstore.integrations.patient_store p2pstore.integrations.upstream_engine"
NO_WHEEL = """
import sys
before = list(sys.meta_path)
class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "mooncake":
            return None
        for each in before:
            found = each.find_spec(name, path, target)
            if found is not None:
                return found
sys.meta_path[:] = [Without()]
"""


def python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False, env={"PATH": "", **variables},
    )  # fmt: skip


INSTALL = "from p2pstore.integrations.vllm_plugin import register; register(); register()\n"


def test_without_a_wheel_they_are_ours() -> None:
    done = python(NO_WHEEL + INSTALL + WHERE)
    assert done.stdout.strip() == OURS, done.stderr
    assert "No module named 'mooncake'" in python(NO_WHEEL + WHERE).stderr
    assert "No module named 'mooncake.allocator'" in python(NO_WHEEL + INSTALL + "import mooncake.allocator").stderr
    assert "No module named 'mooncake'" in python(NO_WHEEL + INSTALL + WHERE, MOONCAKE_COMPAT="0").stderr


def test_a_wheel_goes_before_them_unless_they_are_asked_for() -> None:
    pytest.importorskip("mooncake.store", reason="NO TEST BESIDE THE WHEEL: it is not usable here")
    done = python(INSTALL + WHERE)
    assert done.stdout.strip() == "mooncake.store mooncake.engine", done.stderr
    done = python(INSTALL + WHERE, MOONCAKE_COMPAT="1")
    assert done.stdout.strip() == OURS, done.stderr


def test_they_have_the_wheels_names() -> None:
    """All but those of parts of upstream's that nobody here serves."""
    store = pytest.importorskip("mooncake.store", reason="NO TEST BESIDE THE WHEEL: it is not usable here")
    engine = pytest.importorskip("mooncake.engine")
    lacking = {name for name in vars(store) if not name.startswith("_")} - set(upstream_store.exported())
    assert not lacking & {"MooncakeDistributedStore", "ReplicateConfig", "BufferPool", "COMPLETE", "KVCACHE"}
    assert {"TransferEngine", "TransferNotify", "TransferOpcode", "Read", "Write"} <= set(vars(engine))
    assert {"TransferEngine", "TransferNotify", "TransferOpcode", "Read", "Write"} <= set(upstream_engine.exported())
    mine = {name for name in dir(upstream_engine.TransferEngine) if not name.startswith("_")}
    theirs = {name for name in dir(engine.TransferEngine) if not name.startswith("_")}
    assert theirs - mine <= {
        "TransferOpcode",
        "get_engine",
        "get_engine_ptr",
        "get_local_topology",
        "warmup_efa_segment",
    }


def test_nothing_of_ours_is_imported_before_it_is_needed() -> None:
    code = INSTALL + "print([name for name in sys.modules if name.startswith(('p2pstore.kv', 'engine.engine'))])"
    assert python("import sys\n" + code).stdout.strip() == "[]"


def test_for_a_while_they_are_ours() -> None:
    code = (
        "import sys, types\n"
        "package, theirs = types.ModuleType('mooncake'), types.ModuleType('mooncake.store')\n"
        "package.__path__ = []; package.store = theirs\n"
        "sys.modules.update({'mooncake': package, 'mooncake.store': theirs})\n"
        "from p2pstore.integrations import shim\n"
        "with shim.ours():\n"
        "    from mooncake.store import MooncakeDistributedStore as found\n"
        "import mooncake.store\n"
        "print(found.__module__, mooncake.store is theirs, sys.modules['mooncake.store'] is theirs)\n"
        "print('mooncake.engine' in sys.modules, shim.FINDER in sys.meta_path)"
    )
    done = python(code)
    assert done.stdout.split() == ["p2pstore.integrations.patient_store", "True", "True", "False", "False"], done.stderr
