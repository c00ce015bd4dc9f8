"""`qwen3tts serve` as a process: started in an empty folder, spoken with, stopped."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra 'server'")

import httpx
from serving import LONG, PATIENCE, TEXT

SERVE = (sys.executable, "-m", "qwen3tts_gguf", "serve")
ROOT = Path(__file__).parents[1]


class Served:
    """The process, a client of it, and the lines it prints."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process, self.lines = process, queue.Queue[str]()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        found = re.search(r"on (http://\S+)", self.line_with(" on http://"))
        assert found is not None
        self.client = httpx.Client(base_url=found[1], timeout=PATIENCE, trust_env=False)

    def line_with(self, part: str) -> str:
        """The next one that has it."""
        while part not in (line := self.lines.get(timeout=PATIENCE)):
            assert line, f"it ended without {part!r}"
        return line

    def end(self) -> int:
        """Wait for its end -> exit status."""
        status = self.process.wait(PATIENCE)
        self._reader.join()
        return status

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.put(line)
        self.lines.put("")


def started(folder: Path, *options: str, **environment: str) -> subprocess.Popen[str]:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "200", **environment}
    return subprocess.Popen([*SERVE, *options], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)


@contextmanager
def served(folder: Path, *options: str, **environment: str) -> Iterator[Served]:
    process = started(folder, "--port", "0", *options, **environment)
    try:
        server = Served(process)
        yield server
        server.client.close()
    finally:
        process.kill()
        process.wait()


def refused(folder: Path, *options: str, **environment: str) -> str:
    """What it prints before it ends with 1."""
    process = started(folder, *options, **environment)
    _, text = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    return text


def test_it_speaks_in_an_empty_folder_and_logs_no_text(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        assert server.client.get("/health").json()["status"] == "idle"
        answer = server.client.post("/v1/audio/speech", content=b'{"input": "Seven three nine."}')
        assert answer.status_code == 200 and len(answer.content) > 5000
        assert server.client.get("/health").json()["status"] == "ok"
        line = server.line_with("POST /v1/audio/speech 200")
        assert "letters=17" in line and "outcome=ok" in line and "Seven" not in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stream_is_finished_before_it_stops(tmp_path: Path, sent: signal.Signals, status: int) -> None:
    body = {"input": LONG, "response_format": "pcm", "seed": 5}
    with served(tmp_path, "--preload") as server:
        whole = server.client.post("/v1/audio/speech", json=body).content
        with server.client.stream("POST", "/v1/audio/speech", json=body) as answer:
            blocks = answer.iter_raw()
            first = next(blocks)
            server.process.send_signal(sent)
            assert first + b"".join(blocks) == whole
        assert server.end() == status


def test_keys_come_from_a_file_and_the_environment(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("# ours\nsesame\n\n", "utf-8")
    with served(tmp_path, "--api-key-file", "keys", QWEN3TTS_API_KEY="more") as server:
        for key, status in (("sesame", 200), ("more", 200), ("# ours", 401), ("", 401)):
            headers = {"X-API-Key": key}
            answer = server.client.post("/v1/audio/speech", json={"input": TEXT, "voice": "f2"}, headers=headers)
            assert answer.status_code == status, key


def test_it_warns_when_everyone_may_use_it(tmp_path: Path) -> None:
    process = started(tmp_path, "--port", "0", "--host", "0.0.0.0")
    try:
        assert process.stderr is not None
        assert "everyone who can reach 0.0.0.0" in process.stderr.readline()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--lanes", "many"], "--lanes takes a number or auto"),
        (["--alias", "alloy"], "--alias takes NAME=VOICE"),
        (["--api-key-file", os.devnull], "there is no API key in this file"),
        (["--host", "203.0.113.1"], "cannot listen on 203.0.113.1"),
        (["--model", "none.gguf"], "none.gguf"),
    ],
)
def test_what_cannot_work_is_an_error_at_once(tmp_path: Path, options: list[str], message: str) -> None:
    text = refused(tmp_path, *options)
    assert message in text and "Traceback" not in text and text.startswith("error: ")


def test_a_port_that_is_taken_is_an_error(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        port: Any = server.client.base_url.port
        assert f"cannot listen on 127.0.0.1, port {port}" in refused(tmp_path, "--port", str(port))
