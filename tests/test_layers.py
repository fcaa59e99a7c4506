"""Imports run downward only: mooncake_cli, p2pstore, engine; and inside each, in the order of its floor plan."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts import import_figures

ROOT = Path(__file__).resolve().parents[1]

LAYERS = ("mooncake_cli", "p2pstore", "engine")
"""From the top down."""

MAX_MODULE_BYTES = 16_000
"""What is larger nobody reads to the end."""

LARGER = {
    "engine/cuda/fake_driver.py": 24_500,
    "p2pstore/store.py": 22_000,
    "engine/serving/tcp_server.py": 22_000,
    "p2pstore/swarm/planner.py": 21_000,
    "p2pstore/pull/owner.py": 19_500,
    "p2pstore/agent/embedded_etcd.py": 18_500,
    "engine/engine.py": 18_500,
    "p2pstore/bench/simulator.py": 18_000,
    "p2pstore/objects/source.py": 18_000,
    "p2pstore/peers/peer_server.py": 17_500,
    "engine/etcd/client.py": 17_000,
    "p2pstore/pull/part_files.py": 17_000,
}
"""Modules that are larger still, each with a limit of its own, which is only ever lowered."""

SLOW = ("grpc", "aiohttp", "pyverbs", "xxhash", "google.protobuf", "numpy", "sqlite3", "asyncio")
"""What ``mooncake --help`` and completions do without: they must feel instant."""

MODULES = sorted(path.relative_to(ROOT) for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """The top-level packages that a module imports anywhere, for type checkers or late included."""
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            assert node.module is not None
            yield node.module.split(".")[0]


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_a_module_imports_nothing_above_it(path: Path) -> None:
    above = set(LAYERS[: LAYERS.index(path.parts[0])])
    assert above.isdisjoint(imports(path))


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_no_module_imports_tests_scripts_or_upstream(path: Path) -> None:
    assert {"tests", "scripts", "benchmarks", "mooncake"}.isdisjoint(imports(path))


def test_every_layer_has_modules() -> None:
    assert {path.parts[0] for path in MODULES} == set(LAYERS)


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_a_module_can_be_read_in_one_sitting(path: Path) -> None:
    assert (ROOT / path).stat().st_size <= LARGER.get(str(path), MAX_MODULE_BYTES)


@pytest.mark.parametrize("path", LARGER)
def test_a_limit_of_its_own_is_needed(path: str) -> None:
    assert (ROOT / path).stat().st_size > MAX_MODULE_BYTES


def test_upstreams_name_is_left_to_upstream() -> None:
    """The wheel of the real Mooncake owns ``mooncake``, and both must live in one environment."""
    assert not (ROOT / "mooncake").exists()
    assert not (ROOT / "mooncake.py").exists()
    found = importlib.util.find_spec("mooncake")
    assert found is None or "site-packages" in str(found.origin)


def test_no_imports_make_a_circle() -> None:
    """What imports in a circle can only be read, tested and changed as one."""
    assert import_figures.circles(import_figures.graph(ROOT)) == []


@pytest.mark.parametrize("package", import_figures.PACKAGES)
def test_rooms_import_in_the_order_of_the_floor_plan(package: str) -> None:
    assert import_figures.backwards(import_figures.graph(ROOT), package) == []


@pytest.mark.parametrize("package", import_figures.PACKAGES)
def test_every_room_is_in_the_floor_plan(package: str) -> None:
    """A new module goes into a room. A new room, or a module that stands loose on top, takes its place in the plan."""
    found = map(import_figures.room_of, import_figures.modules(ROOT))
    rooms = {room for owner, room in found if owner == package and room}
    assert rooms - set(import_figures.ROOMS[package]) == set()


def test_a_circle_and_an_arrow_backwards_are_found(tmp_path: Path) -> None:
    """Imports for type checkers alone, and late ones, count."""
    for package in import_figures.PACKAGES:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / "p2pstore" / "errors.py").write_text("if TYPE_CHECKING:\n    from p2pstore.node import Node\n")
    (tmp_path / "p2pstore" / "node.py").write_text("def f():\n    import p2pstore.errors\n")
    links = import_figures.graph(tmp_path)
    assert import_figures.circles(links) == [["p2pstore.errors", "p2pstore.node"]]
    assert import_figures.backwards(links, "p2pstore") == ["p2pstore.errors -> p2pstore.node"]


@pytest.mark.parametrize("module", ["mooncake_cli.main", "mooncake_cli.app"])
def test_the_command_line_imports_nothing_slow(module: str) -> None:
    code = f"import sys, {module}; print(*[name for name in {SLOW!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == []


@pytest.mark.parametrize("module", ["engine.py", "engine/__init__.py"])
def test_what_hides_a_package_is_named(tmp_path: Path, module: str) -> None:
    """Machine learning repositories like to have an engine.py, and a script's directory is the first on sys.path."""
    place = tmp_path / module
    place.parent.mkdir(exist_ok=True)
    place.write_text("raise SystemExit('it is run')\n")
    script = tmp_path / "train.py"
    script.write_text("from p2pstore import P2PStore\n")
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path
    )
    assert f"ImportError: {place} is where the package 'engine' of mooncake should be: rename that" in done.stderr
    assert "it is run" not in done.stderr


@pytest.mark.parametrize("module", ["engine.py", "p2pstore.py"])
def test_the_command_names_what_hides_a_package(tmp_path: Path, module: str) -> None:
    (tmp_path / module).touch()
    done = subprocess.run(
        [sys.executable, "-c", "from mooncake_cli.main import main; main()", "list"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(
        f"error: {tmp_path / module} is where a package of mooncake should be\nhint: rename it"
    )


def test_the_floor_plan_in_the_design_lists_every_room_in_its_order() -> None:
    text = (ROOT / "docs/design.md").read_text(encoding="utf-8")
    plan = text.partition("### Floor plan")[2].partition("###")[0]
    listed: dict[str, list[str]] = {package: [] for package in import_figures.ROOMS}
    for cell in re.findall(r"^\| (`.*?) \|", plan, re.MULTILINE):
        names = re.findall(r"`([^`]+)`", cell)
        package = names[0].partition("/")[0]
        listed[package] += [name.removeprefix(f"{package}/").removesuffix(".py") for name in names]
    assert listed == {
        package: [r for r in rooms if not r.startswith("_")] for package, rooms in import_figures.ROOMS.items()
    }
