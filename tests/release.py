"""A release, built and tried as a user would get it: `just release`. Uploads nothing.

    python tests/release.py            # into dist/

Builds the sdist, and the wheel from the sdist, so that both are complete (`build` is PyPA's own tool); checks their
metadata and README as PyPI would (`twine check`) and their contents; installs the wheel into a bare environment outside
the checkout, and runs the README's first command and `--help` of every command there. The version stands in
pyproject.toml alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import tomllib

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
NEEDED = (
    "qwen3tts_gguf/py.typed",
    "qwen3tts_gguf/nano_model/nano-Q8_0.gguf",
    "qwen3tts_gguf/nano_model/mmproj-nano-Q8_0.gguf",
    "qwen3tts_gguf/nano_model/words.txt",
    "qwen3tts_gguf/nano_model/voices/f2.flac",
    "qwen3tts_gguf/shipped_voices/voices.json",
    "qwen3tts_convert/conversion.py",
)
COMMANDS = """
import typer
from qwen3tts_gguf.cli import app

def walk(command, name):
    print(*name)
    for child in getattr(command, "commands", {}).values():
        walk(child, [*name, child.name])

walk(typer.main.get_command(app), [])
"""


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    version = project["version"]
    if f"## {version}" not in (ROOT / "CHANGELOG.md").read_text("utf-8"):
        print(f"note: CHANGELOG.md has no section '## {version}' yet")
    with tempfile.TemporaryDirectory() as folder:
        tools, user = Path(folder, "tools"), Path(folder, "user")
        _environment(tools, "build", "twine")
        for old in DIST.glob("*"):
            old.unlink()
        _run(tools / "bin/python", "-m", "build", "--outdir", DIST, ROOT)
        (sdist,), (wheel,) = DIST.glob("*.tar.gz"), DIST.glob("*.whl")
        _run(tools / "bin/python", "-m", "twine", "check", "--strict", sdist, wheel)
        _check_sdist(sdist)
        _check_wheel(wheel, project)
        _environment(user, wheel)
        _try(user, Path(folder))
    for file in (sdist, wheel):
        print(f"{file.relative_to(ROOT)}: {file.stat().st_size / 1e6:.1f} MB")


def _check_sdist(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for needed in ("pyproject.toml", "README.md", "LICENSE", "models/nano/nano-Q8_0.gguf"):
        assert needed in names, f"{sdist.name} lacks {needed}"


def _check_wheel(wheel: Path, project: dict[str, object]) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        facts = HeaderParser().parsestr(archive.read(metadata).decode())
    for needed in NEEDED:
        assert needed in names, f"{wheel.name} lacks {needed}"
    strays = [name for name in names if not name.startswith(("qwen3tts_gguf/", "qwen3tts_convert/", "qwen3tts_gguf-"))]
    assert not strays, f"{wheel.name} has files that are not ours: {strays[:5]}"
    assert not [name for name in names if "/tests/" in name or "recipe" in name], (
        f"{wheel.name} has files for developers"
    )
    assert len([name for name in names if "shipped_voices/" in name and name.endswith(".flac")]) == 10
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "qwen3tts_gguf").rglob("*.py")}
    assert sources <= set(names), (
        f"{wheel.name} lacks {sorted(sources - set(names))}: add their package to pyproject.toml"
    )
    assert (facts["Name"], facts["Version"]) == (project["name"], project["version"])
    assert facts["License-Expression"] == "Apache-2.0" and facts["Requires-Python"] == project["requires-python"]


def _try(user: Path, folder: Path) -> None:
    """Commands as a user runs them: without the checkout on any path."""
    program, place = user / "bin/qwen3tts", folder / "elsewhere"
    place.mkdir()
    _run(program, "speak", "Seven three nine.", "--quiet", "-o", "out.wav", cwd=place)
    assert (place / "out.wav").stat().st_size > 24_000, "the first command wrote too little sound"
    listed = subprocess.run(
        [user / "bin/python", "-c", COMMANDS], cwd=place, check=True, capture_output=True, text=True
    )
    for line in listed.stdout.splitlines():
        shown = subprocess.run([program, *line.split(), "--help"], cwd=place, capture_output=True, text=True)
        assert shown.returncode == 0 and "Usage" in shown.stdout, f"qwen3tts {line} --help: {shown.stderr}"
        print(f"qwen3tts {line} --help: {len(shown.stdout.splitlines())} lines")


def _environment(folder: Path, *packages: object) -> None:
    venv.create(folder, with_pip=True)
    _run(folder / "bin/pip", "install", "--quiet", *packages)


def _run(*command: object, cwd: Path | None = None) -> None:
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([str(word) for word in command], cwd=cwd, env=environment)
    if done.returncode:
        sys.exit(f"failed with {done.returncode}: {' '.join(map(str, command))}")


if __name__ == "__main__":
    main()
