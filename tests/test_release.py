"""The checks of `just release`, on lists of names; and the packages that pyproject.toml lists."""

from __future__ import annotations

import re

from release import PACKAGES, ROOT, metadata_faults, readme_for_registry, sdist_faults, wheel_faults

TRACKED = [
    ".gitignore",
    "README.md",
    "pyproject.toml",
    "qwen3tts_gguf/cli/speaking.py",
    "convert/qwen3tts_convert/keys.py",
    "models/nano/nano-Q8_0.gguf",
    "models/nano/recipe/codec.py",
    "tests/release.py",
]
WHEEL = ["qwen3tts_gguf/cli/speaking.py", "qwen3tts_convert/keys.py", "qwen3tts_gguf/nano_model/nano-Q8_0.gguf"]
METADATA = "Name: q\nVersion: 0.2.0\nSummary: s\nRequires-Python: >=3.10\n\n# Readme\n"


def test_a_whole_wheel_has_no_faults() -> None:
    assert wheel_faults([*WHEEL, "q-0.1.dist-info/METADATA"], TRACKED) == []


def test_a_package_that_was_forgotten_and_a_file_too_many_are_faults() -> None:
    assert wheel_faults([*WHEEL[1:], "tests/release.py"], TRACKED) == [
        "the wheel lacks qwen3tts_gguf/cli/speaking.py",
        "the wheel should not have tests/release.py",
    ]


def test_a_source_distribution_has_all_that_git_tracks_but_hidden_files() -> None:
    names = [f"q-0.1/{name}" for name in [*TRACKED[1:], "PKG-INFO", "setup.cfg", "q.egg-info/SOURCES.txt"]]
    assert sdist_faults(names, TRACKED) == []
    assert sdist_faults([*names[1:], "q-0.1/.env"], TRACKED) == [
        "the source distribution lacks README.md",
        "the source distribution should not have .env",
    ]


def test_the_version_is_the_newest_of_the_changelog() -> None:
    assert metadata_faults(METADATA, "# Changelog\n\n## 0.2.0\n\n## 0.1.0\n") == []
    [fault] = metadata_faults(METADATA, "# Changelog\n\n## 0.3.0\n\n## 0.2.0\n")
    assert fault == "the version is 0.2.0; the newest one in CHANGELOG.md is 0.3.0"
    assert metadata_faults("Name: q\nVersion: 0.2.0\n\n", "") == [
        "METADATA lacks Summary",
        "METADATA lacks Requires-Python",
        "METADATA lacks the README",
        "the version is 0.2.0; the newest one in CHANGELOG.md is none",
    ]


def test_links_of_the_readme_work_in_a_registry() -> None:
    """Those to files lead to the release's tag; without an address they are text. Others stay."""
    readme = "[a](docs/a.md), [b](https://b.org), [c](#c) and [d](docs/d.md#part)"
    assert readme_for_registry(readme, "https://host/me/q", "0.2.0") == (
        "[a](https://host/me/q/blob/v0.2.0/docs/a.md), [b](https://b.org), [c](#c) and "
        "[d](https://host/me/q/blob/v0.2.0/docs/d.md#part)"
    )
    assert readme_for_registry(readme, "", "0.2.0") == "a, [b](https://b.org), [c](#c) and d"
    shown = readme_for_registry((ROOT / "README.md").read_text("utf-8"), "", "0.2.0")
    assert not re.search(r"\]\((?!https?://|#)", shown)


def test_pyproject_lists_every_package_once() -> None:
    """A package that is missing there works in a checkout, and is not in the wheel."""
    [listed] = re.findall(
        r"^packages = \[(.*?)\]", (ROOT / "pyproject.toml").read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    packages = re.findall(r'"(.+?)"', listed)
    folders = [file.parent for source in list(PACKAGES)[:2] for file in (ROOT / source).rglob("__init__.py")]
    names = [".".join(folder.relative_to(ROOT).parts).removeprefix("convert.") for folder in folders]
    assert sorted(packages) == sorted([*names, "qwen3tts_gguf.nano_model", "qwen3tts_gguf.shipped_voices"])
