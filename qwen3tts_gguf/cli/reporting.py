"""What the commands that measure share: where a report goes, as tables, JSON and a picture."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from ..errors import OptionError
from .console import print_json, require_folder, stderr
from .panels import OUTPUT, value

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["JsonFileOption", "hand_out", "picture", "require_outputs", "stages"]

_PICTURES = (".png", ".svg")

JsonFileOption = Annotated[Path | None, value("FILE", OUTPUT, "Write the report as JSON; - prints it.", "--json")]


def require_outputs(json_file: Path | None, plot: Path | None) -> None:
    """That both can be written: before minutes of work, not after. Raises OptionError."""
    if json_file is not None and not _is_stdout(json_file):
        require_folder(json_file)
    if plot is None:
        return
    if plot.suffix not in _PICTURES:
        raise OptionError(f"{plot}: pictures can only be saved as {' or '.join(_PICTURES)}")
    require_folder(plot)
    if importlib.util.find_spec("matplotlib") is None:
        raise OptionError("--plot needs matplotlib", hint="pip install 'qwen3tts-gguf[plot]'")


def hand_out(report: dict[str, Any], json_file: Path | None, print_tables: Callable[[], None]) -> None:
    """The tables to stdout, unless the JSON goes there; the JSON where it was asked for. Raises OptionError."""
    if json_file is not None and _is_stdout(json_file):
        print_json(report)
        return
    print_tables()
    if json_file is not None:
        try:
            text = json.dumps(report, ensure_ascii=False, indent=2, allow_nan=False)
            json_file.write_text(text + "\n", "utf-8")
        except OSError as error:
            raise OptionError(f"{json_file}: cannot be written ({error.strerror})") from None


@contextmanager
def picture(file: Path, *, inches: tuple[float, float]) -> Iterator[Figure]:
    """A figure to draw on, saved when the block ends. Raises OptionError."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=inches, layout="constrained")
    yield figure
    try:
        figure.savefig(file, dpi=150)
    except OSError as error:
        raise OptionError(f"{file}: cannot be written ({error.strerror})") from None


def stages(quiet: bool) -> Callable[[str], None]:
    """Prints on a terminal what comes next, in plain lines: a moving bar would change what is measured."""

    def show(stage: str) -> None:
        if not quiet and stderr.is_terminal:
            stderr.print(f"{stage} ...")

    return show


def _is_stdout(file: Path) -> bool:
    return str(file) == "-"
