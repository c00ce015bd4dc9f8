"""`qwen3tts devices`"""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from .console import JsonOption, print_json, printable, stdout

__all__ = ["devices"]


def devices(as_json: JsonOption = False) -> None:
    """List what can compute here: the CPU, and the GPUs that the installed build of llama-cpp-python can use.

    `--device NAME` takes a name of this list.

    Examples:

      qwen3tts devices
      qwen3tts speak "Hello." --device gpu
    """
    from ..ggml import devices as ggml

    found = [(device, *device.memory()) for device in ggml.devices()]
    if as_json:
        facts = [
            {
                "name": device.name,
                "kind": device.kind,
                "description": device.description,
                "free_bytes": free or None,
                "total_bytes": total or None,
            }
            for device, free, total in found
        ]
        print_json(facts)
        return
    table = Table("device", "kind", "memory", "free", "description", box=None, padding=(0, 2, 0, 0))
    for device, free, total in found:
        sizes = [f"{size / 1e9:.1f} GB" if size else "unknown" for size in (total, free)]
        cells = (device.name, device.kind, *sizes, device.description)
        table.add_row(*(escape(printable(cell)) for cell in cells))
    stdout.print(table)
    if len(found) == 1:
        stdout.print(
            "This build of llama-cpp-python finds no GPU: docs/gpu.md has the command that installs a build for one."
        )
