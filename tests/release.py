"""Makes a release and checks it: `just release`. The archives are in dist/ afterwards; uploading them is up to you.

    python tests/release.py [REPOSITORY]

REPOSITORY is the public address, such as https://github.com/OWNER/NAME. A package registry shows the README without
its files, so in the archives its relative links lead to the tag vVERSION there. Without an address they
become plain text.

1. Builds the source distribution, and the wheel from it (`python -m build`, so a file that the source distribution
   lacks is missing in the wheel as well). Needs the extra `release`, a clean checkout and the package registry.
2. Compares their contents with the files that git tracks, and their metadata with CHANGELOG.md and `twine check`.
3. Installs the wheel in a bare virtual environment, outside the checkout and without any extra; runs the README's
   first command there, and `--help` of every command.

The version is in one place, pyproject.toml.
"""

from __future__ import annotations

import email.parser
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import wave
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
PACKAGES = {
    "qwen3tts_gguf/": "qwen3tts_gguf/",
    "convert/qwen3tts_convert/": "qwen3tts_convert/",
    "models/nano/": "qwen3tts_gguf/nano_model/",
    "models/voices/": "qwen3tts_gguf/shipped_voices/",
}
"""Folders of the checkout, and where their files are in the wheel."""
NOT_SHIPPED = re.compile(r"/recipe/|models/nano/(?:curves\.png|held_out\.json|judge\.npz)$")
"""What makes and judges the shipped models is in the source distribution only."""
LOCAL_ONLY = re.compile(r"^\.|^models/\.")
"""What only a checkout needs: .gitignore, CI."""
COMMANDS = """
import typer
from qwen3tts_gguf.cli import app

def walk(command, words):
    print(" ".join(words))
    for name, each in getattr(command, "commands", {}).items():
        walk(each, [*words, name])

walk(typer.main.get_command(app), [])
"""


# -- what should be where ----------------------------------------------------------------------------------------------


def wanted_in_wheel(tracked: Iterable[str]) -> set[str]:
    """The files of the wheel, besides its metadata, for the files that git tracks."""
    return {
        target + path[len(source) :]
        for path in tracked
        for source, target in PACKAGES.items()
        if path.startswith(source) and not NOT_SHIPPED.search(path)
    }


def wheel_faults(names: Iterable[str], tracked: Iterable[str]) -> list[str]:
    """What is missing in a wheel of these names, and what does not belong there."""
    found = {name for name in names if ".dist-info/" not in name}
    wanted = wanted_in_wheel(tracked)
    return _differences("the wheel", found, wanted)


def sdist_faults(names: Iterable[str], tracked: Iterable[str]) -> list[str]:
    """The same for a source distribution; its names start with a folder, and some are written by the build."""
    found = {name.partition("/")[2] for name in names}
    built = {name for name in found if name in ("PKG-INFO", "setup.cfg") or ".egg-info/" in name}
    return _differences("the source distribution", found - built, {p for p in tracked if not LOCAL_ONLY.search(p)})


def _differences(where: str, found: set[str], wanted: set[str]) -> list[str]:
    missing = [f"{where} lacks {name}" for name in sorted(wanted - found)]
    return missing + [f"{where} should not have {name}" for name in sorted(found - wanted)]


def metadata_faults(metadata: str, changelog: str) -> list[str]:
    """What is wrong with a wheel's METADATA."""
    fields = email.parser.Parser().parsestr(metadata)
    faults = [
        f"METADATA lacks {name}" for name in ("Name", "Version", "Summary", "Requires-Python") if not fields[name]
    ]
    if not (fields.get_payload() or "").strip():
        faults.append("METADATA lacks the README")
    versions = re.findall(r"^## (\d\S*)", changelog, re.MULTILINE)
    if fields["Version"] not in versions[:1]:
        newest = versions[0] if versions else "none"
        faults.append(f"the version is {fields['Version']}; the newest one in CHANGELOG.md is {newest}")
    return faults


# -- the steps ---------------------------------------------------------------------------------------------------------


def readme_for_registry(readme: str, repository: str, version: str) -> str:
    """The README with links that work without the repository's files; see the top of this file."""

    def link(found: re.Match[str]) -> str:
        text, target = found.groups()
        if "://" in target or target.startswith("#"):
            return found.group()
        return f"[{text}]({repository}/blob/v{version}/{target})" if repository else text

    return re.sub(r"\[([^\]]+)\]\(([^()\s]+)\)", link, readme)


def build(folder: Path, repository: str) -> tuple[Path, Path]:
    """Builds into folder, out of a clean copy: what an earlier build left in the checkout is not in the archives."""
    copy = folder / "checkout"
    run(["git", "clone", "--quiet", str(ROOT), str(copy)])
    project, readme = copy / "pyproject.toml", copy / "README.md"
    settings = project.read_text("utf-8")
    [version] = re.findall(r'^version = "(.+)"$', settings, re.MULTILINE)
    readme.write_text(readme_for_registry(readme.read_text("utf-8"), repository, version), "utf-8")
    if repository:
        urls = f'[project.urls]\nRepository = "{repository}"\n\n[project.scripts]'
        project.write_text(settings.replace("[project.scripts]", urls), "utf-8")
    run([sys.executable, "-m", "build", "--outdir", str(folder / "dist"), str(copy)], quiet=True)
    [sdist], [wheel] = (folder / "dist").glob("*.tar.gz"), (folder / "dist").glob("*.whl")
    return sdist, wheel


def check(sdist: Path, wheel: Path) -> list[str]:
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    ).stdout.split("\0")[:-1]
    with tarfile.open(sdist) as archive:
        faults = sdist_faults((member.name for member in archive if member.isfile()), tracked)
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        faults += wheel_faults(names, tracked)
        [metadata] = (name for name in names if name.endswith(".dist-info/METADATA"))
        changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
        faults += metadata_faults(archive.read(metadata).decode(), changelog)
    run([sys.executable, "-m", "twine", "check", "--strict", str(sdist), str(wheel)])
    return faults


def try_wheel(wheel: Path, folder: Path) -> None:
    """Installs the wheel in a bare environment and uses it as a new user would."""
    environment = folder / "environment"
    venv.create(environment, with_pip=True)
    programs = environment / ("Scripts" if os.name == "nt" else "bin")
    work = folder / "elsewhere"
    work.mkdir()
    run([str(programs / "python"), "-m", "pip", "install", "--quiet", str(wheel)], work)
    command = str(programs / "qwen3tts")
    run([command, "speak", "Seven three nine.", "-o", "out.wav"], work)
    with wave.open(str(work / "out.wav")) as sound:
        seconds = sound.getnframes() / sound.getframerate()
    if not 0.5 < seconds < 5:
        raise SystemExit(f'"Seven three nine." is {seconds:.1f} s long')
    listed = subprocess.run(
        [str(programs / "python"), "-I", "-c", COMMANDS], cwd=work, check=True, stdout=subprocess.PIPE, text=True
    ).stdout.splitlines()
    for words in listed:
        run([command, *words.split(), "--help"], work, quiet=True)
    print(f"speaks {seconds:.1f} s; --help of {len(listed)} commands")


def run(command: Sequence[str], folder: Path = ROOT, *, quiet: bool = False) -> None:
    """Runs it without what Python's variables would bring along; ends with its output if it fails."""
    print("$", " ".join(command), flush=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "QWEN3TTS"))}
    output = subprocess.PIPE if quiet else None
    done = subprocess.run(
        command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT if quiet else None, text=True
    )
    if done.returncode:
        raise SystemExit(f"{done.stdout or ''}failed with status {done.returncode}: {' '.join(command)}")


def main(repository: str = "") -> None:
    changed = subprocess.run(
        ["git", "status", "--porcelain"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    if changed:
        raise SystemExit(f"commit or remove these first:\n{changed}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        sdist, wheel = build(folder, repository.rstrip("/"))
        faults = check(sdist, wheel)
        if faults:
            raise SystemExit("\n".join(faults))
        try_wheel(wheel, folder)
        DIST.mkdir(exist_ok=True)
        for file in (sdist, wheel):
            shutil.copy(file, DIST)
            print(DIST / file.name, f"{file.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(*sys.argv[1:])
