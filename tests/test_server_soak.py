"""A thousand speeches for 32 clients, a third of which hang up: how fast /health is then, and what stays behind."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="needs the extra 'server'")

import numpy as np
import psutil
from served import Served, served

pytestmark = pytest.mark.soak
NAMES = ("RSS", "threads", "files")
LOAD = Path(__file__).with_name("load.py")


def loaded(server: Served, n_requests: int) -> tuple[dict[str, int], np.ndarray]:
    """Counts of answers, and the seconds that /health took every 20 ms meanwhile."""
    url = str(server.client.base_url)
    load = subprocess.Popen([sys.executable, LOAD, url, "32", str(n_requests)], stdout=subprocess.PIPE, text=True)
    seconds = []
    while load.poll() is None:
        began = time.perf_counter()
        assert server.client.get("/health").status_code == 200
        seconds.append(time.perf_counter() - began)
        time.sleep(0.02)
    assert load.stdout is not None and load.returncode == 0
    return json.load(load.stdout), np.array(seconds)


def state(server: Served) -> tuple[float, int, int]:
    """Megabytes, threads and files of the server, once it is idle."""
    while (health := server.client.get("/health").json())["lanes"]["busy"] or health["queue"]:
        time.sleep(0.05)
    time.sleep(1)  # connections that were closed
    process = psutil.Process(server.process.pid)
    return process.memory_info().rss / 1e6, process.num_threads(), process.num_fds()


def test_a_thousand_requests_leave_nothing_behind_and_health_answers(tmp_path: Path) -> None:
    with served(tmp_path, "--preload", "--lanes", "2") as server:
        loaded(server, 200)
        before = state(server)
        counts, seconds = loaded(server, 1000)
        after = state(server)
    print(f"\n{counts}; /health {1000 * np.percentile(seconds, 50):.1f} ms at the median, ", end="")
    print(f"{1000 * np.percentile(seconds, 99):.1f} at the 99th percentile, {1000 * seconds.max():.1f} at most")
    print("; ".join(f"{name} {b:g} to {a:g}" for name, b, a in zip(NAMES, before, after, strict=True)))
    assert (counts["200"], counts["left"]) == (666, 334) and counts["429"] > 0
    assert np.percentile(seconds, 99) < 0.05
    assert after[0] < before[0] + 8 and after[1] <= before[1] + 2 and after[2] <= before[2] + 2
