"""`qwen3tts serve` as a process, for tests."""

from __future__ import annotations

import os
import queue
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from serving import PATIENCE

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
