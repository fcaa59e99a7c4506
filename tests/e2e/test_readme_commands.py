"""README's commands, run as they stand there, in order: whoever pastes them gets what it promises.

What needs more than this machine is in ``ELSEWHERE`` with the reason, and is read all the same: by the shell, by systemd,
and by our own command line.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.cli.printed_commands import parse
from tests.p2pstore.tensors.checkpoints import file_of
from tests.p2pstore.users import NOBODY

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
BIN = Path(sys.executable).parent
WAIT = 500

_PARTS = re.split(r"^## (.*)$", README, flags=re.MULTILINE)[1:]
SECTIONS = dict(zip(_PARTS[::2], _PARTS[1::2], strict=True))

ELSEWHERE = {
    "make demo": "it is tests/test_demo.py's",
    "python3 -m venv": "tests/test_packaging.py installs the package into a fresh environment",
    "etcd --version": "it needs the first of three hosts",
    "mkdir -p /etc/mooncake": "it writes to /etc",
    "mooncake register llama-3": "it needs three hosts",
    "mooncake get models/llama-3": "it needs three hosts",
    "#!/bin/bash\n#SBATCH": "it needs Slurm",
    "mooncake store master": "tests/e2e/test_store_tour.py runs it, on ports that are free",
    "mooncake store give": "tests/e2e/test_store_tour.py runs it, on ports that are free",
    "echo hello | mooncake store": "tests/e2e/test_store_tour.py runs it, on ports that are free",
    "mooncake node stop ": "it needs two hosts with RDMA devices; scripts/test-rdma runs what it shows",
}
"""Blocks that are not run here, by how they begin."""


def blocks(section: str, language: str = "sh") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", SECTIONS[section], re.MULTILINE | re.DOTALL)


ALL = [(section, block) for section in SECTIONS for block in blocks(section)]


def elsewhere(block: str) -> str:
    return next((why for start, why in ELSEWHERE.items() if block.startswith(start)), "")


class Shell:
    """Somebody's shell in a home of their own, in which the package is installed as README says."""

    def __init__(self, home: Path, prefix: tuple[str, ...]) -> None:
        self.home = home
        self.prefix = prefix
        bin_ = home / "mooncake" / "bin"
        bin_.mkdir(parents=True)
        for name in ("mooncake", "python"):
            (bin_ / name).write_text(f'#!/bin/sh\nexec {BIN / name} "$@"\n')
            (bin_ / name).chmod(0o755)
        (bin_ / "pip").write_text("#!/bin/sh\nexit 0\n")  # what it would install is there
        (bin_ / "pip").chmod(0o755)
        for path in (home, *home.rglob("*")):
            if prefix:
                os.chown(path, NOBODY, NOBODY)

    def run(self, text: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a block to its end; the first command that fails ends it. Paths below /tmp become this home's."""
        script = re.sub(r"(?<=[ =])/tmp/", f"{self.home}/tmp-", text)
        return subprocess.run(
            [*self.prefix, "bash", "-euo", "pipefail", "-c", script],
            cwd=self.home,
            env={"HOME": str(self.home), "PATH": f"{os.environ['PATH']}:{self.home}/mooncake/bin", **environment},
            capture_output=True,
            text=True,
            timeout=WAIT,
            check=False,
        )

    def end(self) -> None:
        for home in ("", f"--home {self.home}/tmp-second"):
            self.run(f"mooncake {home} node stop -q || true")


USERS: Mapping[str, tuple[str, ...]] = {
    "root or whoever runs this": (),
    "nobody": ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"),
}


@pytest.fixture(params=USERS)
def shell(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    prefix = USERS[request.param]
    if prefix:
        if os.geteuid() != 0 or shutil.which("setpriv") is None:
            pytest.skip("NOT AS ANOTHER USER: it takes root and setpriv")
        tried = [*prefix, "sh", "-c", f"{sys.executable} -c ''"]  # setpriv itself may still read what is root's
        if subprocess.run(tried, check=False, capture_output=True, timeout=60).returncode:
            pytest.skip(f"NOT AS ANOTHER USER: nobody may not run {sys.executable}")
    home = Path("/tmp") / f"readme-{os.urandom(4).hex()}" if prefix else tmp_path_factory.mktemp("home")
    made = Shell(home, prefix)
    yield made
    made.end()
    shutil.rmtree(home, ignore_errors=True)


@pytest.mark.timeout(1800)
def test_one_machine(shell: Shell) -> None:
    first, second, third, last = blocks("One machine")
    done = shell.run(first)
    assert done.returncode == 0, done
    assert "registered models/weights: 200.0 MiB" in done.stderr
    done = shell.run(second)
    assert done.returncode == 0, done
    done = shell.run(third)
    assert done.returncode == 0, done
    copies = {
        name: (shell.home / name / "config.json").read_text() for name in ("some", "all/llama-3", "copy", "before")
    }
    assert copies == {name: f'{{"step": {2 if name == "copy" else 1}}}\n' for name in copies}
    assert [path.name for path in (shell.home / "some").iterdir()] == ["config.json"]
    done = shell.run(last)
    assert done.returncode == 0, done
    assert "withdrew the gold of models/weights" in done.stderr


@pytest.mark.timeout(1800)
def test_python(shell: Shell) -> None:
    pytest.importorskip("numpy", reason="NO PYTHON EXAMPLE: numpy is not installed")
    example, tensors = blocks("Python", "python")
    names = [f"model.layers.{layer}.self_attn.q_proj.weight" for layer in range(2)]
    checkpoint = shell.home / "llama-3"
    checkpoint.mkdir(mode=0o755)
    (checkpoint / "model.safetensors").write_bytes(file_of(dict.fromkeys(names, ("F32", (64, 64)))))
    lines = [
        example,
        'assert (copy["w"] == weights["w"]).all()',
        "keeper = P2PStore(METADATA)",
        'keeper.register("models/llama-3", "llama-3")',
        tensors,
        f"assert list(layer) == {names[:1]}, layer",
        f"assert {{name: tensor.shape for name, tensor in mine.items()}} == dict.fromkeys({names}, (8, 64)), mine",
        "keeper.close()",
    ]
    (shell.home / "example.py").write_text("\n".join(lines))
    (commands,) = blocks("Python")
    done = shell.run(commands)
    assert done.returncode == 0, done
    assert {path.name for path in (shell.home / "step-1000").iterdir()} == {"w", "b"}


def test_every_block_is_run_or_says_why_not() -> None:
    run = {*blocks("One machine"), *blocks("Python")}
    for section, block in ALL:
        assert (block in run) != bool(elsewhere(block)), f"{section}: {block}"
    for start in ELSEWHERE:
        assert any(block.startswith(start) for _, block in ALL), f"{start!r} is in README no more"


@pytest.mark.parametrize("block", [block for _, block in ALL], ids=lambda block: block.splitlines()[0])
def test_a_shell_can_read_it(block: str) -> None:
    done = subprocess.run(["bash", "-n", "-c", block], check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("NO UNIT CHECK: systemd-analyze is not installed")
    (unit,) = blocks("A cluster", "ini")
    assert "%h/mooncake/bin/mooncake" in unit
    (tmp_path / "mooncake.service").write_text(unit.replace("%h/mooncake/bin/mooncake", str(BIN / "mooncake")))
    done = subprocess.run(
        [tool, "verify", "--user", tmp_path / "mooncake.service"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
    )
    said = [line for line in done.stderr.splitlines() if "mooncake" in line]
    assert not said, done.stderr


def in_prose() -> list[str]:
    """Commands in the middle of a sentence; what stands for something is written in capitals, and parses, too."""
    text = re.sub(r"^```.*?^```", "", README, flags=re.MULTILINE | re.DOTALL)
    found = [code.replace("\\|", "|") for code in re.findall(r"`(mooncake [^`]+)`", text)]
    return [re.sub(r"\[(\w+)\]", r"\1", code).replace("...", "").replace("|", "") for code in found]


@pytest.mark.parametrize("command", in_prose())
def test_a_command_in_prose_is_one(command: str) -> None:
    assert parse(command)
