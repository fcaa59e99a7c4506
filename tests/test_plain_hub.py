"""The plain file server of the hub's benchmark gives the released client the very files, so that the two compare."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import huggingface_hub

ROOT = Path(__file__).resolve().parents[1]


def test_the_released_client_downloads_from_it(tmp_path: Path) -> None:
    files = {"model-0.safetensors": os.urandom((3 << 20) + 1), "config.json": b"{}"}
    source = tmp_path / "source"
    source.mkdir()
    for name, data in files.items():
        (source / name).write_bytes(data)
    command = [sys.executable, str(ROOT / "benchmarks" / "plain_hub.py"), str(source)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        assert server.stdout is not None
        got = huggingface_hub.snapshot_download(
            "org/any", endpoint=server.stdout.readline().strip(), cache_dir=tmp_path / "cache", token=False
        )
    finally:
        server.kill()
        server.communicate()
    assert {path.name: path.read_bytes() for path in Path(got).iterdir()} == files
