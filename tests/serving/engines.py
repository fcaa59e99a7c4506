"""Real vLLM servers on a CPU, as processes: how they are started, asked, killed and ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from tests.ports import reserved_port

SERVER = Path(__file__).with_name("vllm_server.py")

START_SECONDS = 600
"""For an engine to serve; it takes 15 s alone on a quick machine, and four at once on a busy one take long."""

ANSWER_SECONDS = 300
END_SECONDS = 60

ENGINE_BYTES = 3 << 30
"""Memory that an engine takes."""

BLOCK = 128
"""Tokens of a block."""

VARIABLES = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "2",
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "MC_FORCE_TCP": "1",
    "MC_TCP_BIND_ADDRESS": "127.0.0.1",
    # What a busy machine may take for an answer is no matter of these tests.
    "MOONCAKE_PATIENCE": "30",
}


class Answer(NamedTuple):
    """What a completion came to, and how many of its prompt's tokens were not computed."""

    text: str
    finish: str
    cached: int
    seconds: float


class Engine:
    """A vLLM server. ``wait`` for it before it is asked."""

    def __init__(
        self,
        python: Path,
        overlay: Sequence[Path],
        model: Path,
        directory: Path,
        name: str,
        *,
        transfer: Mapping[str, Any] | None = None,
        variables: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        """``overlay`` are directories that come before the environment's own packages."""
        self.port = reserved_port()
        self.address = f"127.0.0.1:{self.port}"
        self.name = name
        self.log = directory / f"{name}.log"
        command = [
            str(python), str(SERVER), "--model", str(model), "--served-model-name", "tiny",
            "--host", "127.0.0.1", "--port", str(self.port),
            "--dtype", "float32", "--max-model-len", "4096", "--block-size", str(BLOCK),
            "--enforce-eager", "--enable-prompt-tokens-details", *arguments,
        ]  # fmt: skip
        if transfer is not None:
            command += ["--kv-transfer-config", json.dumps(transfer)]
        kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR") if key in os.environ}
        environment = {
            **kept, "PYTHONPATH": os.pathsep.join(map(str, overlay)), "XDG_STATE_HOME": str(directory / "state"),
            **VARIABLES, **(variables or {}),
        }  # fmt: skip
        self.serves = False
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command, env=environment, cwd=directory, stdout=log, stderr=log, start_new_session=True
            )

    def wait(self) -> Engine:
        """Until it serves."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            assert self._process.poll() is None, f"{self.name} ended: {self.last_words()}"
            assert time.monotonic() < deadline, f"{self.name} does not serve: {self.last_words()}"
            with suppress(OSError), urllib.request.urlopen(f"http://{self.address}/health", timeout=5):
                self.serves = True
                return self
            time.sleep(0.5)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def last_words(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]

    def ask(self, prompt: Sequence[int], tokens: int = 16, **more: object) -> Answer:
        """Complete a prompt of token ids, always with the likeliest token."""
        return ask(self.address, prompt, tokens, **more)

    def kill(self) -> None:
        """As a crash would, with all its processes."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(END_SECONDS)

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(END_SECONDS)
        self.kill()


def ask(address: str, prompt: Sequence[int], tokens: int = 16, **more: object) -> Answer:
    """Complete a prompt at an address."""
    body = {"model": "tiny", "prompt": list(prompt), "max_tokens": tokens, "temperature": 0, "ignore_eos": True, **more}
    began = time.monotonic()
    found = post(f"http://{address}/v1/completions", body)
    (choice,) = found["choices"]
    details = found["usage"].get("prompt_tokens_details") or {}
    return Answer(choice["text"], choice["finish_reason"], details.get("cached_tokens") or 0, time.monotonic() - began)


def post(url: str, body: Mapping[str, object]) -> dict[str, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
            return dict(json.load(answer))
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{url}: {error.code} {error.read().decode(errors='replace')[:2000]}") from None


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=ANSWER_SECONDS) as answer:
        return json.load(answer)
