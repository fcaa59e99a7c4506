from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_the_soft_limit_is_raised_as_far_as_the_hard_one_allows() -> None:
    code = (
        "import resource; from engine.files.open_limit import allow_many_files, MAX_OPEN_FILES\n"
        "_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, min(hard, 512)))\n"
        "allow_many_files(); print(*resource.getrlimit(resource.RLIMIT_NOFILE), MAX_OPEN_FILES)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    soft, hard, most = map(int, done.stdout.split())
    assert soft == hard == min(512, resource.getrlimit(resource.RLIMIT_NOFILE)[1]) < most
