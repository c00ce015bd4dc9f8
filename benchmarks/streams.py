"""Live streams at once from `qwen3tts serve`: when each is first audible, and where a listener would hear it stop.

    python benchmarks/streams.py TALKER.gguf --streams 1 2 4 --frames 75 --out streams.json

Starts the server with as many lanes as the largest number of streams, loads the model, speaks once unmeasured, and then
sends 1, 2, 4 .. requests for PCM at the same moment, `--runs` times each, in turns. A stream is played from 50 ms after
its first bytes, as the server's page does, and has a gap wherever bytes come after the ones before were played. Printed
per number of streams: median and longest time to the first sound, seconds of gaps per minute of speech, the longest
gap, and seconds taken per second of speech after the first sound. The machine holds as many streams as have no gap in
any run.

(Every speech has `--frames` frames; one that would go on is cut there by the server, on purpose.)
"""

from __future__ import annotations

import argparse
import http.client
import json
import socket
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from qwen3tts_gguf.measure.benchmark import TEXT
from qwen3tts_gguf.measure.machine import machine_facts, versions

_BYTES_PER_SECOND = 48_000
_AHEAD_SECONDS = 0.05
_START_SECONDS = 60


@dataclass(frozen=True)
class Heard:
    """One stream as its listener has it, in seconds."""

    first: float
    gaps: float
    longest_gap: float
    speech: float
    pace: float


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__.splitlines()[0] if __doc__ else None, epilog=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    arguments.add_argument("talker", metavar="TALKER")
    arguments.add_argument("--streams", type=int, nargs="+", default=[1, 2, 4])
    arguments.add_argument("--frames", type=int, default=75, help="of each speech; 12.5 are a second (75)")
    arguments.add_argument("--threads", type=int, default=2, help="(2)")
    arguments.add_argument("--runs", type=int, default=3, help="(3)")
    arguments.add_argument("--out", type=Path, metavar="FILE.json")
    wanted = arguments.parse_args()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "qwen3tts_gguf", "serve", "--model", wanted.talker, "--preload"]
    command += ["--port", str(port), "--lanes", str(max(wanted.streams)), "--threads", str(wanted.threads), "--quiet"]
    server = subprocess.Popen(command)
    try:
        _wait_until_ready(port, server)
        _listen(port, wanted.frames)
        runs: dict[int, list[Heard]] = {n: [] for n in wanted.streams}
        for _ in range(wanted.runs):
            for n in wanted.streams:
                runs[n] += _together(port, n, wanted.frames)
    finally:
        server.terminate()
        server.wait()
    _print(runs)
    facts = {"machine": machine_facts(), "versions": versions(), "frames": wanted.frames, "threads": wanted.threads}
    print(f"{facts['machine']['cpu']}, {wanted.threads} threads, {wanted.frames} frames per speech")
    if wanted.out:
        rows = {n: [asdict(each) for each in heard] for n, heard in runs.items()}
        text = json.dumps({**facts, "talker": Path(wanted.talker).name, "streams": rows}, indent=1)
        wanted.out.write_text(text + "\n", "utf-8")


def _wait_until_ready(port: int, server: subprocess.Popen[bytes]) -> None:
    give_up_at = time.monotonic() + _START_SECONDS
    while time.monotonic() < give_up_at and server.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        try:
            connection.request("GET", "/health")
            if json.loads(connection.getresponse().read())["status"] == "ok":
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.1)
    raise SystemExit("the server did not start")


def _together(port: int, n: int, n_frames: int) -> list[Heard]:
    start, heard = threading.Barrier(n), []

    def listen() -> None:
        start.wait()
        heard.append(_listen(port, n_frames))

    threads = [threading.Thread(target=listen) for _ in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(heard) < n:
        raise SystemExit("a stream failed")
    return heard


def _listen(port: int, n_frames: int) -> Heard:
    body = {"input": TEXT, "response_format": "pcm", "max_frames": n_frames, "retries": 0, "priority": "live"}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    asked_at = time.perf_counter()
    connection.request("POST", "/v1/audio/speech", json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    if answer.status != 200:
        raise SystemExit(f"{answer.status}: {answer.read().decode()}")
    chunks: list[tuple[float, float]] = []
    try:
        while data := answer.read1(1 << 20):
            chunks.append((time.perf_counter(), len(data) / _BYTES_PER_SECOND))
    except (http.client.HTTPException, ConnectionError):  # cut at `--frames`
        pass
    finally:
        connection.close()
    return _heard(asked_at, chunks)


def _heard(asked_at: float, chunks: list[tuple[float, float]]) -> Heard:
    first_at, last_at = chunks[0][0], chunks[-1][0]
    heard_until, gaps = first_at + _AHEAD_SECONDS, [0.0]
    for at, seconds in chunks:
        gaps.append(max(0.0, at - heard_until))
        heard_until = max(heard_until, at) + seconds
    speech = sum(seconds for _, seconds in chunks)
    pace = (last_at - first_at) / (speech - chunks[0][1])
    return Heard(first_at - asked_at, sum(gaps), max(gaps), speech, pace)


def _print(runs: dict[int, list[Heard]]) -> None:
    print("| Streams | First sound, median | longest | Gaps per minute | Longest gap | Seconds per second of speech |")
    print("|---|---|---|---|---|---|")
    for n, heard in runs.items():
        first, longest = statistics.median(each.first for each in heard), max(each.first for each in heard)
        per_minute = 60 * sum(each.gaps for each in heard) / sum(each.speech for each in heard)
        gap, pace = max(each.longest_gap for each in heard), statistics.median(each.pace for each in heard)
        print(f"| {n} | {first:.2f} s | {longest:.2f} s | {per_minute:.1f} s | {gap:.2f} s | {pace:.2f} |")


if __name__ == "__main__":
    main()
