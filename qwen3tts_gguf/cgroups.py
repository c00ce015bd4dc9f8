"""The control groups that this process is in: where Linux keeps a container's limits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

__all__ = ["control_groups"]

_ROOT = Path("/sys/fs/cgroup")
_PROCESS = Path("/proc/self/cgroup")


def control_groups(controller: str, root: Path = _ROOT, process: Path = _PROCESS) -> Iterator[Path]:
    """The folders of this process's group and of all groups above it, for one controller ("memory", "cpu").

    Versions 1 and 2. Inside a container the group's own path may not exist; the root is the container's group then.
    Empty on other systems.
    """
    try:
        lines = process.read_text().splitlines()
    except OSError:
        return
    for line in lines:  # "hierarchy:controllers:/path", version 2 without controllers
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        # Version 1 mounts each controller by its name, or several as "cpu,cpuacct".
        for top in {root / controllers, root / controller} if controllers else {root}:
            group = top / path.lstrip("/")
            yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(top))
