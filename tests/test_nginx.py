"""Servers behind nginx with the lines of docs/deploy."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")

import httpx
from serving import LONG, PATIENCE, TEXT, running

from qwen3tts_gguf import TTS
from qwen3tts_gguf.server.answer import SpeechResponse

CONFIG = Path(__file__).parents[1] / "docs" / "deploy" / "nginx.conf"


@contextmanager
def nginx_before(folder: Path, *servers: str) -> Iterator[httpx.Client]:
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        pytest.skip("no nginx")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    page = CONFIG.read_text("utf-8").replace("listen 80;", f"listen 127.0.0.1:{port};")
    for i, server in enumerate(servers):
        page = page.replace(f"127.0.0.1:888{i}", server.removeprefix("http://"))
    logs = f"error_log {folder}/error.log; pid {folder}/pid; daemon off; events {{}} http {{ access_log off;"
    (folder / "nginx.conf").write_text(f"{logs}\n{page}\n}}\n", "utf-8")
    process = subprocess.Popen([program, "-p", str(folder), "-c", str(folder / "nginx.conf")])
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE, trust_env=False) as client:
            for _ in range(6000):
                try:
                    client.get("/health")
                    break
                except httpx.ConnectError:
                    time.sleep(0.01)
            yield client
    finally:
        process.terminate()
        process.wait(PATIENCE)


def test_a_full_server_passes_the_request_on_to_the_next(tmp_path: Path) -> None:
    body = {"input": TEXT, "response_format": "pcm", "seed": 5}
    (tmp_path / "nginx").mkdir()
    with (
        TTS("nano", n_lanes=2) as nano,
        running(tmp_path / "a", nano, n_queue=0) as full,
        running(tmp_path / "b", nano, n_queue=0) as free,
        nginx_before(tmp_path / "nginx", full.url, free.url) as client,
    ):
        alone = free.speak(response_format="pcm", seed=5).content
        with full.occupied():
            assert full.speak().status_code == 429
            for _ in range(4):  # nginx begins with either
                answer = client.post("/v1/audio/speech", json=body)
                assert answer.status_code == 200 and answer.content == alone
            free.wait_until(lambda: free.is_free)
            with free.occupied():
                answer = client.post("/v1/audio/speech", json=body)
                assert answer.status_code == 429 and int(answer.headers["retry-after"]) >= 1


def test_a_stream_arrives_as_it_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    may_go_on, send, n_sent = threading.Event(), SpeechResponse._send, 0

    async def slow(self: SpeechResponse, *message: Any, **more: Any) -> None:
        nonlocal n_sent
        n_sent += 1
        if n_sent == 3:
            assert await asyncio.to_thread(may_go_on.wait, PATIENCE)
        await send(self, *message, **more)

    with (
        TTS("nano", n_lanes=2) as nano,
        running(tmp_path / "voices", nano) as server,
        nginx_before(tmp_path, server.url, server.url) as client,
    ):
        monkeypatch.setattr(SpeechResponse, "_send", slow)
        with client.stream("POST", "/v1/audio/speech", json={"input": LONG, "response_format": "pcm"}) as answer:
            assert answer.status_code == 200
            blocks = answer.iter_raw()
            first = next(blocks)  # while the third block has not been sent
            may_go_on.set()
            assert 0 < len(first) <= 2 * 3840 < len(first) + len(b"".join(blocks))
        assert answer.headers["x-qwen3tts-seed"]
