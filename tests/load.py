"""`load.py URL CLIENTS REQUESTS`: that many speeches for that many clients at once, in a process of its own.

A third of them hang up after the first sound. Clients that are refused come back. Prints how many answers there were of
each kind.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter

import httpx

TEXTS = (
    "Seven three nine.",
    "Good morning Anna, it is ten forty five.",
    "One two three four five six seven eight nine.",
)


async def once(client: httpx.AsyncClient, body: dict[str, object], *, leaves: bool) -> str:
    async with client.stream("POST", "/v1/audio/speech", json=body) as answer:
        async for _ in answer.aiter_raw():
            if leaves and answer.status_code == 200:
                return "left"
        return str(answer.status_code)


async def main(url: str, n_clients: int, n_requests: int) -> Counter[str]:
    counts: Counter[str] = Counter()
    numbers = iter(range(n_requests))

    async def ask() -> None:
        async with httpx.AsyncClient(base_url=url, timeout=120, trust_env=False) as client:
            for i in numbers:
                format = ("pcm", "mp3", "opus", "wav")[i % 4]
                body = {"input": TEXTS[i % 3], "response_format": format, "seed": i % 50, "stream": i % 5 != 0}
                while (answered := await once(client, body, leaves=i % 3 == 0)) == "429":
                    counts[answered] += 1
                    await asyncio.sleep(0.25)
                counts[answered] += 1

    await asyncio.gather(*(ask() for _ in range(n_clients)))
    return counts


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))))
