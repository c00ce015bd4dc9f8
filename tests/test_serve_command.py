"""`qwen3tts serve` as a process: started in an empty folder, spoken with, stopped."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra 'server'")

from served import served, started
from serving import LONG, PATIENCE, TEXT


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
