"""The voices that come with the package: which is the default, and what is encoded, cached and refused.

That the default voice is the official package's is held by golden/default_voice.npz.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import relative_error
from test_modes import LAYOUTS, TEXTS
from test_voice_clips import BOX, NANO, table

from qwen3tts_convert import ConvertedPair
from qwen3tts_gguf import TTS, OptionError, SpeechOptions, Voice, VoiceError
from qwen3tts_gguf.model import nano
from qwen3tts_gguf.model.files import MmprojFile
from qwen3tts_gguf.voice import shipped
from qwen3tts_gguf.voice.cache import VoiceCache, model_key
from qwen3tts_gguf.voice.encoder import VoiceEncoder

Pair = Callable[..., ConvertedPair]
ROOT = Path(__file__).parents[1]
NAMES = [row["name"] for row in table(BOX)]
OPTIONS = SpeechOptions(greedy=True, max_frames=3, language="english")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for this test -> the folder of its voices."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "qwen3tts" / "voices"


def codes(tts: TTS, voice: Voice | None = None, options: SpeechOptions = OPTIONS) -> list[list[int]]:
    """The first frames of a greedy speech."""
    with tts.utter("Hello!", voice, options) as utterance:
        utterance.finish()
        found: list[list[int]] = utterance.codes.tolist()
        return found


def of_clip(tts: TTS, row: dict[str, str], folder: Path = BOX, **options: Any) -> Voice:
    """A voice made from a clip by its path, as a user does it."""
    return Voice.from_audio(folder / f"{row['name']}.flac", tts, **options)


def same(a: Voice, b: Voice) -> bool:
    return a.transcript == b.transcript and all(
        (x is None and y is None) or np.array_equal(x, y)  # type: ignore[arg-type]
        for x, y in ((a.speaker, b.speaker), (a.codes, b.codes))
    )


# -- the default voice -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_default_voice_equals_the_official_one(
    golden: Callable[[str], dict[str, Any]], tts: TTS, layout: str
) -> None:
    """The same clip and transcript by the official package: codes of the reference, prompt, 30 greedy frames, sound."""
    expected, key = golden("default_voice"), f"default.{layout}"
    options = SpeechOptions(language="english", greedy=True, max_frames=30, layout=LAYOUTS[layout])
    with tts.utter(TEXTS["english"], None, options) as utterance:
        samples = np.concatenate(list(utterance))
    prompt = tts.request(TEXTS["english"], None, options).prompt
    reference = tts.resolve(None).codes
    assert reference is not None and reference.tolist() == expected["default.reference_codes"].tolist()
    column_step = expected["steps"][1]
    assert relative_error(prompt.embeddings[:, ::column_step], expected[f"{key}.prompt"]) < 1e-4
    assert relative_error(prompt.trailing[:, ::column_step], expected[f"{key}.trailing"]) < 1e-4
    assert utterance.codes.tolist() == expected[f"{key}.codes"].tolist()
    sample_step = expected[f"{key}.waveform.steps"][0]
    assert relative_error(samples[::sample_step], expected[f"{key}.waveform"].reshape(-1)) < 1e-4


def test_a_base_model_speaks_in_the_first_voice_of_the_table(tts: TTS) -> None:
    assert list(tts.shipped_voices) == NAMES
    assert tts.default_voice is not None and tts.default_voice.shipped_name == NAMES[0]
    first = of_clip(tts, table(BOX)[0], transcript=table(BOX)[0]["transcript"])
    assert same(tts.resolve(None), first) and first.codes is not None
    assert codes(tts) == codes(tts, first) == codes(tts, Voice.shipped(NAMES[0]))


def test_an_empty_voice_lets_the_model_choose(tts: TTS) -> None:
    assert tts.resolve(Voice()).is_clone is False
    assert codes(tts, Voice()) != codes(tts)


def test_the_default_voice_can_be_set(tts: TTS, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tts, "default_voice", Voice.shipped("ken"))
    assert codes(tts) == codes(tts, Voice.shipped("ken"))
    monkeypatch.setattr(tts, "default_voice", None)
    assert codes(tts) == codes(tts, Voice())


@pytest.mark.parametrize(("size", "model_type"), [("tiny", "custom_voice"), ("tiny-1.7b", "voice_design")])
def test_models_that_do_not_clone_have_no_shipped_voices(pair: Pair, size: str, model_type: str) -> None:
    tts = TTS(pair(size=size, model_type=model_type).talker)
    assert tts.default_voice is None and not tts.shipped_voices
    with pytest.raises(OptionError, match="cannot clone"):
        tts.utter("Hello!", Voice.shipped("ken"))
    with pytest.raises(OptionError, match="needs a"):
        tts.utter("Hello!")


# -- by name -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", table(BOX), ids=NAMES)
def test_a_clip_makes_a_voice_without_notes(tts: TTS, row: dict[str, str]) -> None:
    voice = of_clip(tts, row, transcript=row["transcript"])
    assert voice.notes == ()
    assert voice.codes is not None and len(voice.codes) <= 90  # what the prompt of every speech pays


def test_an_unknown_name_is_an_error_with_the_known_ones(tts: TTS) -> None:
    with pytest.raises(VoiceError, match=f"'nobody'.*{', '.join(NAMES)}"):
        tts.utter("Hello!", Voice.shipped("nobody"))


def test_a_shipped_voice_may_be_used_by_its_vector_alone(tts: TTS) -> None:
    bare = Voice.shipped("ken").without_codes()
    assert same(tts.resolve(bare), of_clip(tts, {"name": "ken"}))
    assert codes(tts, bare) != codes(tts, Voice.shipped("ken"))


def test_a_shipped_voice_may_have_a_language_and_takes_no_instructions(tts: TTS) -> None:
    german = replace(Voice.shipped("ken"), language="german")
    unasked = replace(OPTIONS, language=None)
    assert tts.resolve(german).language == "german" and tts.resolve(Voice.shipped("ken")).language is None
    assert codes(tts, german, unasked) == codes(tts, Voice.shipped("ken"), replace(OPTIONS, language="german"))
    with pytest.raises(OptionError, match="cannot follow instructions"):
        tts.utter("Hello!", replace(Voice.shipped("ken"), instruct="Slowly."))


def test_a_shipped_voice_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(VoiceError, match="cannot be saved"):
        Voice.shipped("ken").save(tmp_path / "ken.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_pair_without_a_codec_encoder_uses_the_speaker_vector(tts: TTS, pair: Pair, cache: Path) -> None:
    """As llama.cpp's converter writes it."""
    plain = TTS(pair().talker)
    plain._shipped._files.mmproj.encoder = None
    voice = plain.resolve(None)
    assert voice.codes is None and voice.notes == ()
    assert codes(plain) == codes(tts, Voice.shipped(NAMES[0]).without_codes())


def test_an_installation_without_the_clips_lets_the_model_choose(
    tmp_path: Path, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipped, "_PLACES", (tmp_path / "absent",))
    tts = TTS(pair().talker)
    assert tts.default_voice is None and tts.resolve(None).is_clone is False
    with pytest.raises(VoiceError, match="this model has none"):
        tts.resolve(Voice.shipped("ken"))


# -- nano --------------------------------------------------------------------------------------------------------------


def test_nano_has_its_own_voices() -> None:
    tts = TTS(nano.NAME)
    assert list(tts.shipped_voices) == [row["name"] for row in table(NANO)] and len(tts.shipped_voices) == 10
    assert tts.default_voice is not None and tts.default_voice.shipped_name == "us"
    # by the speaker vector: in context nano says three times as many words wrong
    assert same(tts.resolve(Voice.shipped("f2")), of_clip(tts, {"name": "f2"}, NANO))
    with pytest.raises(VoiceError, match="'ken'"):
        tts.resolve(Voice.shipped("ken"))


def test_the_wheel_holds_both_tables_and_every_clip() -> None:
    """The package data of pyproject.toml, as setuptools reads it."""
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    assert '"qwen3tts_gguf.shipped_voices" = "models/voices"' in project
    assert re.search(r'^ +"qwen3tts_gguf\.shipped_voices",$', project, re.MULTILINE)
    for package, folder in (("shipped_voices", BOX), ("nano_model", NANO.parent)):
        globs = re.search(rf'^"qwen3tts_gguf\.{package}" = \[(.*)\]$', project, re.MULTILINE)
        assert globs is not None
        shipped_files = {file for pattern in re.findall(r'"([^"]+)"', globs[1]) for file in folder.glob(pattern)}
        voices = folder if folder == BOX else NANO
        assert {voices / "voices.json", *(voices / f"{row['name']}.flac" for row in table(voices))} <= shipped_files


# -- the cache ---------------------------------------------------------------------------------------------------------


def test_the_encoders_are_used_once_then_never_again(pair: Pair, cache: Path) -> None:
    first = TTS(pair().talker)
    assert not cache.exists() and not first.voice_encoder.is_loaded  # nothing is done before the first speech
    made = codes(first)
    assert first.voice_encoder.is_loaded and len(list(cache.iterdir())) == 1
    second = TTS(pair().talker)
    assert codes(second) == made and not second.voice_encoder.is_loaded
    assert same(first.resolve(None), second.resolve(None)) and len(list(cache.iterdir())) == 1


def test_a_resolved_voice_is_the_same_object_each_time(tts: TTS) -> None:
    """So the prompt positions and the codec's state of its reference are kept between speeches."""
    assert tts.resolve(None) is tts.resolve(Voice.shipped(NAMES[0]))
    german = replace(Voice.shipped("ken"), language="german")
    assert tts.resolve(german) is tts.resolve(replace(german))
    own = Voice(speaker=np.ones(128, np.float32))
    assert tts.resolve(own) is own


def test_each_model_has_its_own_entry(pair: Pair, cache: Path) -> None:
    pairs = [pair(), pair(codec_type="f16"), pair(size="tiny-1.7b")]
    assert len({model_key(MmprojFile(each.mmproj)) for each in pairs}) == 3
    for n, each in enumerate(pairs, 1):
        TTS(each.talker).resolve(None)
        assert len(list(cache.iterdir())) == n


def damage(file: Path, what: str) -> None:
    voice = Voice.load(file)
    assert voice.codes is not None and voice.speaker is not None
    changed = {
        "other words": replace(voice, transcript="Hello!"),
        "codes that do not exist": replace(voice, codes=voice.codes + 5_000),
        "no codes": voice.without_codes(),
        "a vector of another size": replace(voice, speaker=voice.speaker[:-1].copy()),
        "another codec": replace(voice, codec="0" * 16),
        "another encoder": replace(voice, speaker_encoder="0" * 16),
    }
    if what in changed:
        changed[what].save(file)
    else:
        file.write_bytes(b"" if what == "empty" else b"\x00" * 100)


@pytest.mark.parametrize(
    "what",
    [
        "other words", "codes that do not exist", "no codes", "a vector of another size", "another codec",
        "another encoder", "empty", "zeros",
    ],
)  # fmt: skip
def test_a_damaged_entry_is_made_again(tts: TTS, pair: Pair, cache: Path, what: str) -> None:
    TTS(pair().talker).resolve(None)
    [file] = cache.iterdir()
    damage(file, what)
    again = TTS(pair().talker)
    assert same(again.resolve(None), tts.resolve(None)) and again.voice_encoder.is_loaded
    assert same(Voice.load(file), tts.resolve(None))


@pytest.mark.parametrize("place", ["a file", "read-only"])
def test_a_cache_that_cannot_be_written_is_no_error(
    tts: TTS, pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file") if place == "a file" else "/proc/self")
    alone = TTS(pair().talker)
    assert same(alone.resolve(None), tts.resolve(None)) and alone.voice_encoder.is_loaded
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
    user = VoiceCache.of_user()
    assert (user.files(), user.n_bytes(), user.clear()) == ([], 0, 0)


def test_without_a_home_nothing_is_cached(tts: TTS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system names no folder, "~" is left as it is, and would become a folder of that name."""
    import platformdirs

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name, **_: f"~/.cache/{name}")
    user = VoiceCache.of_user()
    user.save("mika", "key", tts.resolve(None))
    assert user.folder is None and user.load("mika", "key") is None and not list(tmp_path.iterdir())
    assert (user.files(), user.n_bytes(), user.clear()) == ([], 0, 0)


def test_the_cache_is_measured_and_cleared(pair: Pair, cache: Path) -> None:
    TTS(pair().talker).resolve(None)
    user = VoiceCache.of_user()
    [file] = user.files()
    assert file.parent == cache and file.name.startswith(f"{NAMES[0]}-")
    assert user.n_bytes() == file.stat().st_size > 5_000
    (cache / "not ours.txt").touch()
    assert user.clear() == 1 and [each.name for each in cache.iterdir()] == ["not ours.txt"]


def test_two_threads_make_a_voice_once(pair: Pair, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tts, calls, found = TTS(pair().talker), [], []
    encode, start = VoiceEncoder.encode, threading.Barrier(3)

    def counted(self: VoiceEncoder, *arguments: Any, **options: Any) -> Voice:
        calls.append(1)
        return encode(self, *arguments, **options)

    def speak() -> None:
        start.wait()
        found.append((codes(tts), tts.resolve(None)))

    monkeypatch.setattr(VoiceEncoder, "encode", counted)
    threads = [threading.Thread(target=speak) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert len({id(voice) for _, voice in found}) == 1 and all(made == found[0][0] for made, _ in found)
