"""Run a command where RDMA verbs are real: in a small virtual machine with two soft devices.

    python scripts/rdma_vm.py -- .venv/bin/python -m pytest tests/rdma

It needs no RDMA hardware, no module in this machine's kernel, no KVM and no privilege: QEMU emulates a processor, which
runs Debian's own kernel with ``rdma_rxe``, and the command finds this machine's whole file tree. What it writes is gone
afterwards, but for what ``--rw`` names. Its output and its exit status come back; 77 says that no guest can be had on
this machine, 123 that the guest was lost, 124 that it took too long, and 125 that the guest's kernel crashed.

With ``--engine uml`` (or RDMA_VM_ENGINE=uml) it is user-mode Linux instead, whose kernel ``scripts/rdma-build-uml``
makes once for a machine: the command then starts within a second and runs at full speed, on one processor.
``scripts/rdma-guest-init`` is the guest's first process, and says what the network and the devices are.
"""

from __future__ import annotations

import argparse
import contextlib
import lzma
import os
import platform
import re
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NoReturn

INIT = Path(__file__).with_name("rdma-guest-init")
CACHE = Path(
    os.environ.get("RDMA_VM_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "rdma-vm"
).expanduser()
MACHINE = "x86_64"
"""What the guest's kernel and its emulated processor are for: the command is of this machine's own file tree."""

KERNELS = ("linux-image-6.12-amd64", "linux-image-amd64")
"""Debian 12's newer kernel, and the kernel of Debian 13, which was not tried. The -cloud ones lack rdma_rxe."""

OLDEST = (6, 12)
"""In 6.1 rdma_rxe hangs on long READs now and then."""

MODULES = (
    "virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay",
    "crc32_generic",  # rdma_rxe asks for it by name, and the guest has no modprobe
    "ib_uverbs", "rdma_ucm", "rdma_rxe", "veth",
)  # fmt: skip

CPU = "Nehalem"
"""With newer models libraries choose AVX code, which takes twice as long to emulate."""

APPEND = (
    "console=ttyS0 quiet loglevel=4 panic=-1 reboot=t mitigations=off nokaslr no5lvl audit=0 no_timer_check "
    "random.trust_cpu=1 rcupdate.rcu_expedited=1"
)
"""The kernel's command line: what does nothing useful here is left out, since it is emulated."""

PASSED = ("PATH", "HOME", "LANG", "LC_ALL", "CI", "VIRTUAL_ENV", "LD_LIBRARY_PATH")
PASSED_PREFIXES = ("PYTHON", "PYTEST", "PYENV", "RDMA", "MOONCAKE_VERBS")
"""The environment that the command is given."""

END_SECONDS = 5.0
APT_SECONDS = 900.0
CANNOT_RUN, LOST, TOO_LONG, CRASHED = 77, 123, 124, 125
"""Exit statuses of ours; 77 is what test programs that cannot run end with by custom."""

CRASHES = ("Kernel panic", "BUG: ", "Oops: ", "general protection fault")
"""What a kernel says when it crashes."""


def fail(message: str) -> NoReturn:
    print(f"rdma_vm: {message}", file=sys.stderr)
    sys.exit(CANNOT_RUN)


# The kernel


def image_of(depends: str, kernel: str) -> str | None:
    """The package that ``kernel`` stands for by ``apt-cache depends``; None if there is none, or it is too old."""
    names = [line.split()[-1] for line in depends.splitlines() if "Depends: linux-image-" in line]
    name = names[0] if names else kernel
    version = re.match(r"linux-image-(\d+)\.(\d+)", name)
    if not depends or version is None or (int(version[1]), int(version[2])) < OLDEST:
        return None
    return name


def apt(*command: str, cwd: Path | None = None) -> str:
    """What one of apt's commands prints; where it fails, its complaint is ours."""
    try:
        told = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=APT_SECONDS)
    except FileNotFoundError:
        fail(f"no {command[0]}: the guest's kernel is a package of Debian's")
    except subprocess.TimeoutExpired:
        fail(f"{shlex.join(command)}: no end after {APT_SECONDS:g} s")
    if told.returncode:
        fail(f"{shlex.join(command)}: {told.stderr.strip() or told.stdout.strip()}")
    return told.stdout


def kernel_tree() -> Path:
    """The kernel's package, downloaded and unpacked below the cache; nothing is installed."""
    trees = sorted(CACHE.glob("linux-image-*/boot"))
    if trees:
        return trees[-1].parent
    CACHE.mkdir(parents=True, exist_ok=True)
    # A package that apt does not know is an error of apt-cache on some releases, and an empty answer on others.
    told = {kernel: apt("sh", "-c", f"apt-cache depends {kernel} 2>/dev/null || true") for kernel in KERNELS}
    package = next((name for kernel, depends in told.items() if (name := image_of(depends, kernel))), None)
    if package is None:
        oldest = ".".join(map(str, OLDEST))
        fail(f"apt knows no kernel from {oldest} on ({' or '.join(KERNELS)}); run apt-get update, on Debian 12 or 13")
    tree = CACHE / package
    with tempfile.TemporaryDirectory(dir=CACHE) as directory:
        part = Path(directory)
        if os.geteuid() == 0:
            shutil.chown(part, "_apt")  # apt downloads as that user
        apt("apt-get", "-q", "download", package, cwd=part)
        apt("dpkg-deb", "-x", str(next(part.glob("*.deb"))), f"{part}/x")
        os.replace(part / "x", tree)
    return tree


def plain_kernel(tree: Path) -> Path:
    """The kernel unpacked, as QEMU starts it at once: emulated, unpacking it would take seconds."""
    made = tree / "vmlinux"
    if not made.exists():
        image = next(tree.glob("boot/vmlinuz-*")).read_bytes()
        # Linux's boot protocol: the size of the set-up part in sectors, then where in what follows the payload lies.
        start = (image[0x1F1] + 1) * 512 + struct.unpack_from("<I", image, 0x248)[0]
        payload = image[start : start + struct.unpack_from("<I", image, 0x24C)[0] - 4]
        if payload[:4] == b"\xfd7zX":
            image = lzma.decompress(payload)
        elif payload[:4] == b"\x28\xb5\x2f\xfd":
            image = subprocess.run(["zstd", "-dcq"], input=payload, stdout=subprocess.PIPE, check=True).stdout
        part = tree / f"vmlinux.{os.getpid()}"
        part.write_bytes(image)
        part.rename(made)
    return made


def modules(tree: Path) -> dict[str, bytes]:
    """The modules that the guest loads, each after those that it depends on."""
    paths = {path.name.split(".")[0].replace("-", "_"): path for path in tree.glob("lib/modules/*/kernel/**/*.ko*")}
    found: dict[str, bytes] = {}

    def add(name: str) -> None:
        name = name.replace("-", "_")
        if name in found or name not in paths:
            return  # known, or part of the kernel
        data = paths[name].read_bytes()
        data = lzma.decompress(data) if paths[name].suffix == ".xz" else data
        at = data.index(b"\0depends=") + 9
        for needed in data[at : data.index(b"\0", at)].decode().split(","):
            add(needed)
        found[name] = data

    for name in MODULES:
        add(name)
    return found


def archive(entries: Iterable[tuple[str, int, bytes]]) -> bytes:
    """A cpio archive ("newc") of names, modes and contents."""
    out = bytearray()
    for number, (name, mode, data) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
        raw = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(raw), 0)
        for part in (b"070701" + b"".join(b"%08X" % field for field in fields) + raw, data):
            out += part
            out += bytes(-len(out) % 4)
    return bytes(out + bytes(-len(out) % 512))


def initramfs(tree: Path) -> bytes:
    """The guest's first files: a shell, the first process, the modules."""
    busybox = shutil.which("busybox")
    if busybox is None:
        fail("no busybox; apt-get install busybox-static")
    found = modules(tree)
    directories = ("bin", "dev", "proc", "m", "job", "host", "mem")
    entries = [(name, 0o040755, b"") for name in directories]
    entries += [("bin/busybox", 0o100755, Path(busybox).read_bytes()), ("init", 0o100755, INIT.read_bytes())]
    entries += [(f"m/{name}", 0o100644, data) for name, data in found.items()]
    return archive([*entries, ("m/order", 0o100644, "".join(f"{name}\n" for name in found).encode())])


# A run


def job(args: argparse.Namespace) -> dict[str, str]:
    """What the guest is to do, as small files."""
    given = os.environ.items()
    env = {name: value for name, value in given if name in PASSED or name.startswith(PASSED_PREFIXES)}
    env |= {"TERM": "dumb", "RDMA_VM": args.engine}
    if args.engine == "uml":  # a fresh page is dear there: let malloc keep what it has
        env |= {"MALLOC_MMAP_THRESHOLD_": "1073741824", "MALLOC_TRIM_THRESHOLD_": "1073741824"}
    lines = [f"export {name}={shlex.quote(value)}" for name, value in sorted(env.items())]
    lines += [f"cd {shlex.quote(str(Path.cwd()))} || exit 125", "exec " + shlex.join(args.command)]
    rw = [f"rw{number} {Path(directory).resolve()}\n" for number, directory in enumerate(args.rw)]
    return {"cmd": "\n".join(lines) + "\n", "init": INIT.read_text(), "rw": "".join(rw)}


def start_qemu(args: argparse.Namespace, work: Path, output: int) -> subprocess.Popen[bytes]:
    """Start the emulated guest; its command's output goes to a descriptor."""
    if not shutil.which("qemu-system-x86_64"):
        fail("no qemu-system-x86_64; apt-get install qemu-system-x86")
    tree = kernel_tree()
    kernel = plain_kernel(tree)
    files = archive((f"job/{name}", 0o100644, text.encode()) for name, text in job(args).items())
    (work / "initramfs").write_bytes(initramfs(tree) + files)
    shares = [("hostroot", "/", ",readonly=on")]
    shares += [(f"rw{number}", str(Path(directory).resolve()), "") for number, directory in enumerate(args.rw)]
    command = [
        "qemu-system-x86_64", "-M", "q35", "-cpu", CPU, "-smp", "2", "-m", args.memory,
        "-accel", "tcg,thread=multi,tb-size=512", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-nic", "none", "-kernel", str(kernel), "-initrd", str(work / "initramfs"),
        "-append", APPEND,
        "-serial", f"file:{work}/console", "-device", "virtio-serial-pci",
        "-chardev", "stdio,id=out,signal=off", "-device", "virtserialport,chardev=out,nr=1",
        "-chardev", f"file,id=status,path={work}/status", "-device", "virtserialport,chardev=status,nr=2",
    ]  # fmt: skip
    for tag, path, more in shares:
        command += ["-fsdev", f"local,id={tag},path={path},security_model=none,multidevs=remap{more}"]
        command += ["-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]
    # Standard input is a pipe that stays open: at its end QEMU would close the output's port.
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output)


def start_uml(args: argparse.Namespace, work: Path, output: int) -> subprocess.Popen[bytes]:
    """Start user-mode Linux; its command's output goes to a descriptor."""
    kernel = CACHE / "linux-uml"
    if not kernel.exists():
        fail(f"no {kernel}; run scripts/rdma-build-uml")
    (work / "job").mkdir()
    for name, text in job(args).items():
        (work / "job" / name).write_text(text)
    command = [
        str(kernel), f"mem={args.memory}", "rootfstype=hostfs", "rootflags=/", "ro", "init=/bin/sh",
        f"RDMA_VM_JOB={work}/job", f"uml_dir={work}/", "umid=uml", "con=null", "con0=null,fd:1",
        f"con1=null,fd:{output}", "quiet", "--", str(INIT),
    ]  # fmt: skip
    with (work / "console").open("wb") as console:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            pass_fds=[output],
            start_new_session=True,
            cwd=work,
        )


@contextlib.contextmanager
def guest(args: argparse.Namespace, work: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The guest, whose command's output is passed on; it is ended at the latest here."""
    read_end, write_end = os.pipe()
    process = (start_uml if args.engine == "uml" else start_qemu)(args, work, write_end)
    os.close(write_end)

    def copy() -> None:
        # By us: the guest makes its end non-blocking, so it is not given our own.
        while data := os.read(read_end, 1 << 16):
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()

    copier = threading.Thread(target=copy, daemon=True)
    copier.start()
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        copier.join(END_SECONDS)


def run(args: argparse.Namespace) -> int:
    """Run the command; its exit status."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="rdma-vm-") as directory:
        work = Path(directory)
        with guest(args, work) as process:
            try:
                process.wait(args.timeout)
                ended, wrong = f"the guest exited with {process.returncode}", LOST
            except subprocess.TimeoutExpired:
                ended, wrong = f"it did not end within {args.timeout:g} s", TOO_LONG
        files = [work / "status", work / "job" / "status"]
        status = "".join(file.read_text() for file in files if file.exists()).strip()
        if not status.isdigit():
            console = work / "console"
            said = console.read_text(errors="replace") if console.exists() else ""
            print(said, f"rdma_vm: {ended}", sep="\n", file=sys.stderr)
            return CRASHED if any(crash in said for crash in CRASHES) else wrong
    print(f"rdma_vm: {args.engine}, {time.monotonic() - began:.0f} s", file=sys.stderr)
    return int(status)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--engine", choices=("qemu", "uml"), default=os.environ.get("RDMA_VM_ENGINE") or "qemu")
    parser.add_argument("--rw", action="append", default=[], metavar="DIR", help="a directory that may be written")
    parser.add_argument("--memory", default="4G")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds for the whole run")
    parser.add_argument("command", nargs="+", metavar="CMD")
    args = parser.parse_args()
    if platform.machine() != MACHINE:
        fail(f"the guest is for {MACHINE}, and this machine is {platform.machine()}")
    return run(args)


if __name__ == "__main__":
    sys.exit(main())
