"""How much memory a model takes is estimated before it is loaded, and what does not fit is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from qwen3tts_convert import ConvertedPair
from qwen3tts_gguf import TTS
from qwen3tts_gguf.cgroups import control_groups
from qwen3tts_gguf.cli import app
from qwen3tts_gguf.errors import BackendError
from qwen3tts_gguf.model import footprint as memory
from qwen3tts_gguf.model.files import ModelFiles

Pair = Callable[..., ConvertedPair]


def test_what_is_needed_follows_the_weights_that_speak(pair: Pair) -> None:
    large, small = (ModelFiles(pair(type=type).talker) for type in ("f32", "q8_0"))
    tables = ("token_embd", "a.codec_enc", "a.blk", "a.conv", "a.asp", "mm.a")
    spoken = sum(
        info.n_bytes
        for file in (large.talker.file, large.mmproj.file)
        for name, info in file.tensors.items()
        if not name.startswith(tables)
    )
    needed = memory.needed_bytes(large)
    assert spoken < needed < spoken + (256 << 20)
    assert memory.needed_bytes(small) < needed


def test_what_is_available_is_a_share_of_the_machine() -> None:
    assert 0 < memory.available_bytes() < 1 << 50


def test_a_model_that_does_not_fit_is_refused_unless_forced(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = pair(type="q8_0", ends="at-once").talker
    monkeypatch.setattr(memory, "available_bytes", lambda: 10 << 20)
    with pytest.raises(BackendError, match=r"needs about 0\.2 GB of memory, and 0\.0 GB are free.*`check_memory`"):
        TTS(path, check_memory=True)
    command = ["speak", "Hello.", "--model", str(path), "-o", str(tmp_path / "a.wav"), "-q"]
    refused = CliRunner().invoke(app, command, standalone_mode=False)
    assert isinstance(refused.exception, BackendError) and not (tmp_path / "a.wav").exists()
    assert CliRunner().invoke(app, [*command, "--force"], standalone_mode=False).exception is None
    assert (tmp_path / "a.wav").exists()


def test_a_model_that_fits_is_loaded(pair: Pair) -> None:
    TTS(pair(type="q8_0").talker, check_memory=True, n_threads=1)


def group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_a_control_group_and_those_above_it_limit_what_is_there(tmp_path: Path) -> None:
    process = tmp_path / "cgroup"
    process.write_text("0::/a/b\n")
    statistics = "anon 5\nactive_file 30\ninactive_file 20\n"
    group(tmp_path / "sys" / "a" / "b", memory__max="max\n", memory__current="100\n", memory__stat=statistics)
    group(tmp_path / "sys" / "a", memory__max="1000\n", memory__current="400\n", memory__stat=statistics)
    assert memory.left_in(control_groups("memory", tmp_path / "sys", process)) == [650]


def test_control_groups_of_version_1_count_too(tmp_path: Path) -> None:
    process = tmp_path / "cgroup"
    process.write_text("5:cpu:/x\n4:memory:/box\n")
    group(
        tmp_path / "sys" / "memory" / "box",
        memory__limit_in_bytes="1000\n",
        memory__usage_in_bytes="900\n",
        memory__stat="total_active_file 100\ntotal_inactive_file 200\n",
    )
    assert memory.left_in(control_groups("memory", tmp_path / "sys", process)) == [400]


def test_without_control_groups_nothing_limits(tmp_path: Path) -> None:
    assert memory.left_in(control_groups("memory", tmp_path, tmp_path / "absent")) == []
