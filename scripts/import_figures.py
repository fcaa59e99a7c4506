"""Print how the packages hang together: modules on top, arrows between rooms, arrows that run backwards, circles.

    python scripts/import_figures.py [ROOT]

``tests/test_layers.py`` asserts what is printed here. An import counts wherever it stands: late, or for type checkers
alone.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

PACKAGES = ("engine", "p2pstore", "mooncake_cli")

ROOMS: Mapping[str, Sequence[str]] = {
    "engine": [
        "_version",
        "errnos",
        "errors",
        "cgroups",
        "patience",
        "processes",
        "signals",
        "arguments",
        "forks",
        "files",
        "protocol",
        "rpc",
        "config",
        "topology",
        "net",
        "etcd",
        "memory",
        "cuda",
        "transports",
        "serving",
        "metadata",
        "transfer",
        "engine",
        "bench",
    ],
    "p2pstore": [
        "errors",
        "supervisor",
        "metrics",
        "objects",
        "tensors",
        "metadata",
        "swarm",
        "settings",
        "cluster",
        "node_options",
        "holding",
        "sharing",
        "pull",
        "hub",
        "origins",
        "endpoint",
        "info",
        "peers",
        "assembly",
        "node",
        "agent",
        "calls",
        "store",
        "kv",
        "inspect",
        "doctor",
        "bench",
        "serving",
        "integrations",
    ],
    "mooncake_cli": [
        "reader",
        "text",
        "progress",
        "output",
        "invocation",
        "intervals",
        "screen",
        "plot",
        "plot_swarm",
        "plot_serving",
        "bench_options",
        "framework",
        "logfile",
        "calls",
        "attempts",
        "wanted",
        "tags",
        "destinations",
        "gets",
        "names",
        "commands",
        "app",
        "command_line",
        "main",
        "__main__",
    ],
}
"""The floor plan: a room imports from those before it, never from those after it. It is a folder or a top module."""


def modules(root: Path) -> dict[str, Path]:
    """All modules by dotted name; a package stands for its ``__init__``."""
    found = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path, known: Mapping[str, Path]) -> Iterator[str]:
    """The modules of ours that one imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in known else str(node.module)


def graph(root: Path) -> dict[str, set[str]]:
    """Which module imports which."""
    known = modules(root)
    return {name: set(imported(path, known)) - {name} for name, path in known.items()}


def room_of(module: str) -> tuple[str, str]:
    """The package and the room of a module; a package's own ``__init__`` is no room."""
    package, _, rest = module.partition(".")
    return package, rest.partition(".")[0]


def arrows(links: Mapping[str, set[str]], package: str) -> dict[tuple[str, str], list[str]]:
    """The arrows between rooms of a package, each with the imports that make it."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, targets in links.items():
        here, room = room_of(name)
        for target in targets:
            there, other = room_of(target)
            if here == there == package and room and other and room != other:
                found.setdefault((room, other), []).append(f"{name} -> {target}")
    return found


def circles(links: Mapping[str, set[str]]) -> list[list[str]]:
    """The circles of imports: Tarjan's strongly connected components of more than one module."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for target in sorted(links.get(name, ())):
            if target not in index:
                visit(target)
                low[name] = min(low[name], low[target])
            elif target in stack:
                low[name] = min(low[name], index[target])
        if low[name] == index[name]:
            circle = [stack.pop()]
            while circle[-1] != name:
                circle.append(stack.pop())
            if len(circle) > 1:
                found.append(sorted(circle))

    for name in sorted(links):
        if name not in index:
            visit(name)
    return found


def backwards(links: Mapping[str, set[str]], package: str) -> list[str]:
    """Imports that run against the floor plan."""
    order = {room: place for place, room in enumerate(ROOMS[package])}
    return sorted(
        line
        for (room, other), lines in arrows(links, package).items()
        if order.get(other, len(order)) > order.get(room, -1)
        for line in lines
    )


def main(arguments: list[str]) -> int:
    """Print the figures of a checkout: this one's, or ROOT's."""
    root = Path(arguments[0]) if arguments else Path(__file__).resolve().parents[1]
    links = graph(root)
    print(f"{'package':<14}{'modules':>9}{'on top':>9}{'rooms':>9}{'arrows':>9}{'backwards':>11}{'circles':>9}")
    for package in PACKAGES:
        own = [name for name in links if name.split(".")[0] == package]
        loose = [name for name in own if name.count(".") == 1 and not (root / name.replace(".", "/")).is_dir()]
        rooms = {room_of(name)[1] for name in own} - {""}
        between = arrows(links, package)
        in_circles = [circle for circle in circles(links) if circle[0].split(".")[0] == package]
        print(
            f"{package:<14}{len(own):>9}{len(loose):>9}{len(rooms):>9}{len(between):>9}"
            f"{len(backwards(links, package)):>11}{len(in_circles):>9}"
        )
        for circle in in_circles:
            print(f"  circle: {', '.join(circle)}")
        for line in backwards(links, package) if len(rooms) <= 25 else ():
            print(f"  backwards: {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
