"""The shipped voices on the command line: the default, by name, in the list, and their cache."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import test_cli
import tiny
from test_voice_clips import BOX, NANO, table

from qwen3tts_convert import ConvertedPair
from qwen3tts_gguf import TTS, SpeechOptions, Voice, VoiceStore

Pair = Callable[..., ConvertedPair]
NAMES = [row["name"] for row in table(BOX)]
FRAMES = 2
SHORT = ("--max-frames", FRAMES, "--seed", "1", "-o", "out.wav", "--codes", "out.npy")

run, is_one_error_line = test_cli.run, test_cli.is_one_error_line


@pytest.fixture
def pair(pair: Pair) -> Pair:
    """Models that end after two frames."""
    return partial(pair, ends="at-once")


@pytest.fixture
def base(pair: Pair) -> Path:
    return pair().talker


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with voices and a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QWEN3TTS_VOICES", str(tmp_path / "voices"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("QWEN3TTS_VOICE", raising=False)
    soundfile.write("ref.wav", tiny.reference_clip(), 24_000)
    return tmp_path


@pytest.fixture
def store(place: Path) -> VoiceStore:
    return VoiceStore(place / "voices")


@pytest.fixture
def speak(run: test_cli.Run, base: Path) -> Callable[..., list[list[int]]]:
    """speak(options) -> codes, by the tiny Base model or the one given."""

    def call(*options: object, model: Path = base) -> list[list[int]]:
        result = run("speak", "Hello.", "-m", model, "-q", *options, *SHORT)
        assert (result.code, result.err) == (0, "")
        codes: list[list[int]] = np.load("out.npy").tolist()
        return codes

    return call


@pytest.fixture
def spoken(base: Path) -> Callable[[Voice | None], list[list[int]]]:
    """spoken(voice) -> the codes that the library makes of the same."""
    tts = TTS(base)

    def call(voice: Voice | None) -> list[list[int]]:
        with tts.utter("Hello.", voice, SpeechOptions(seed=1, max_frames=FRAMES)) as utterance:
            utterance.finish()
        codes: list[list[int]] = utterance.codes.tolist()
        return codes

    return call


def listed(run: test_cli.Run, *options: object) -> list[dict[str, Any]]:
    voices: list[dict[str, Any]] = json.loads(run("voice", "list", "--json", *options).out)
    return voices


# -- speaking ----------------------------------------------------------------------------------------------------------


def test_each_kind_of_voice_is_the_librarys(speak: Callable[..., Any], spoken: Callable[[Voice | None], Any]) -> None:
    by_default = spoken(None)
    assert speak() == by_default == spoken(Voice.shipped(NAMES[0]))
    assert speak("--voice", "none") == speak("--voice", "None") == spoken(Voice()) != by_default
    assert speak("--voice", "ken") == spoken(Voice.shipped("ken")) != by_default
    assert speak("--x-vector-only") == spoken(Voice.shipped(NAMES[0]).without_codes()) != by_default
    assert speak("--voice", "ken", "--x-vector-only") == spoken(Voice.shipped("ken").without_codes())


def test_a_saved_voice_comes_before_a_shipped_one(
    speak: Callable[..., Any], spoken: Callable[[Voice | None], Any], store: VoiceStore
) -> None:
    saved = Voice(speaker=np.ones(128, np.float32))
    store.save("ken", saved)
    assert speak("--voice", "ken") == spoken(saved) != spoken(Voice.shipped("ken"))


def test_a_clip_comes_before_a_name(speak: Callable[..., Any], place: Path) -> None:
    (place / "ken").write_bytes((place / "ref.wav").read_bytes())
    assert speak("--voice", "ken") == speak("--voice", "ref.wav")


def test_the_environment_names_another_default(
    speak: Callable[..., Any],
    spoken: Callable[[Voice | None], Any],
    pair: Pair,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    custom, design = pair(model_type="custom_voice").talker, pair(size="tiny-1.7b", model_type="voice_design").talker
    without = speak("--speaker", "vivian", model=custom), speak("--instruct", "Calm.", model=design)
    monkeypatch.setenv("QWEN3TTS_VOICE", "ken")
    assert speak() == spoken(Voice.shipped("ken"))
    assert speak("--x-vector-only") == spoken(Voice.shipped("ken").without_codes())
    assert speak("--voice", "rin") == spoken(Voice.shipped("rin"))
    assert speak("--voice", "none") == spoken(Voice())
    assert (speak("--speaker", "vivian", model=custom), speak("--instruct", "Calm.", model=design)) == without
    monkeypatch.setenv("QWEN3TTS_VOICE", "none")
    assert speak() == spoken(Voice())
    monkeypatch.setenv("QWEN3TTS_VOICE", "")
    assert speak() == spoken(None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["speak", "Hi.", "--voice", "nobody"], "no voice named 'nobody' is shipped with this model or in "),
        (["speak", "Hi.", "--voice", "nobody"], f"known voices: anna, {', '.join(NAMES)}"),
        (["speak", "Hi.", "--voice", "ken", "--ref-text", "Hello."], "'ken' is not a clip: --ref-text"),
        (["speak", "Hi.", "--voice", "none", "--x-vector-only"], "--voice none lets the model choose the voice"),
        (["speak", "Hi.", "--ref-text", "Hello."], "need a clip: give the clip with --voice"),
        (["speak", "Hi.", "--voice", "ken", "--speaker", "vivian"], "both choose the voice"),
        (["speak", "Hi.", "--speaker", "vivian"], "has no preset speakers"),
        (["speak", "Hi.", "--instruct", "Calm."], "cannot follow instructions"),
        (["speak", "Hi.", "--voice", "ken", "-m", "{custom}"], "cannot clone a voice"),
        (["speak", "Hi.", "--voice", "ken", "-m", "nano"], "known voices: anna, us, "),
        (["speak", "Hi.", "--save-voice", "none"], "'none' cannot be the name of a voice"),
        (["voice", "create", "none", "ref.wav"], "'none' cannot be the name of a voice"),
        (["voice", "create", "None", "ref.wav"], "'None' cannot be the name of a voice"),
        (["voice", "mix", "anna", "anna", "-o", "none"], "'none' cannot be the name of a voice"),
    ],
)
def test_what_cannot_be_is_one_line(
    run: test_cli.Run, pair: Pair, base: Path, store: VoiceStore, arguments: list[str], message: str
) -> None:
    store.save("anna", Voice(speaker=np.ones(128, np.float32)))
    arguments = [str(pair(model_type="custom_voice").talker) if each == "{custom}" else each for each in arguments]
    if arguments[1] not in ("mix",) and "-m" not in arguments:
        arguments += ["-m", str(base)]
    result = run(*arguments, *(SHORT if arguments[0] == "speak" else ()))
    assert is_one_error_line(result) and message in result.err, result.err
    assert store.names() == ["anna"]


def test_measuring_uses_no_voice_unless_given_one(
    run: test_cli.Run, base: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QWEN3TTS_VOICE", "ken")
    for options, voice in (((), ("the model's own choice", 0)), (("--voice", "ken"), ("in context", 78))):
        assert run("bench", "-m", base, "--frames", 2, "--json", "bench.json", "-q", *options).code == 0
        report = json.loads(Path("bench.json").read_text())["voice"]
        assert (report["kind"], report["reference_frames"]) == voice
    chosen: list[bool] = []
    utter = TTS.utter

    def watched(self: TTS, text: str, voice: Voice | None = None, *rest: Any) -> Any:
        chosen.append(voice is not None and voice.is_clone)
        return utter(self, text, voice, *rest)

    monkeypatch.setattr(TTS, "utter", watched)
    run("verify", "-m", base, "--against", base, "--text", "Hi.", "--max-frames", 2, "-q")
    assert chosen and not any(chosen)


# -- the list ----------------------------------------------------------------------------------------------------------


def test_the_list_shows_saved_and_shipped_voices_and_the_default(
    run: test_cli.Run, base: Path, store: VoiceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save("anna", Voice(speaker=np.ones(128, np.float32)))
    voices = listed(run, "-m", base)
    assert [(voice["name"], voice["kind"]) for voice in voices] == [
        ("anna", "saved"),
        *((name, "shipped") for name in NAMES),
    ]
    assert [voice["name"] for voice in voices if voice["default"]] == [NAMES[0]]
    row = table(BOX)[4]
    assert {key: voices[5][key] for key in ("name", "sex", "accent", "transcript", "origin")} == {
        key: row[key] for key in ("name", "sex", "accent", "transcript", "origin")
    }
    text = run("voice", "list", "-m", base).out.decode()
    assert all(name in text for name in ("anna", *NAMES)) and "shipped, default" in text and "saved" in text
    monkeypatch.setenv("QWEN3TTS_VOICE", "anna")
    assert [voice["name"] for voice in listed(run, "-m", base) if voice["default"]] == ["anna"]
    store.save("ken", Voice(speaker=np.ones(128, np.float32)))  # what --voice ken is now
    assert [voice["kind"] for voice in listed(run, "-m", base) if voice["name"] == "ken"] == ["saved"]


def test_the_list_follows_the_model(
    run: test_cli.Run, pair: Pair, place: Path, store: VoiceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    nanos = [row["name"] for row in table(NANO)]
    assert [voice["name"] for voice in listed(run)] == nanos  # no model is there: nano would speak
    assert [voice["name"] for voice in listed(run, "-m", "nano")] == nanos
    monkeypatch.setenv("QWEN3TTS_VOICE", "ken")
    assert listed(run, "-m", pair(model_type="custom_voice").talker) == []
    (place / "models").mkdir()
    for name in ("a.gguf", "mmproj-a.gguf", "b.gguf"):  # any Base model may be meant
        (place / "models" / name).touch()
    assert [voice["name"] for voice in listed(run)] == NAMES
    assert is_one_error_line(run("voice", "list", "-m", "absent.gguf"))


def test_a_shipped_voice_is_shown(run: test_cli.Run, base: Path, store: VoiceStore) -> None:
    shown = json.loads(run("voice", "show", "ken", "--json", "-m", base).out)
    assert shown["kind"] == "shipped" and shown["clip"] == str(BOX / "ken.flac") and shown["sex"] == "male"
    assert "Kokoro jm_kumo" in run("voice", "show", "ken", "-m", base).out.decode()
    store.save("ken", Voice(speaker=np.ones(128, np.float32)))
    assert json.loads(run("voice", "show", "ken", "--json", "-m", base).out)["kind"] == "saved"
    assert is_one_error_line(run("voice", "show", "nobody", "-m", base))


def test_a_shipped_voice_is_shown_without_a_model(run: test_cli.Run) -> None:
    """nano, which then speaks, has voices of its own; the help's example is about one of the others."""
    assert json.loads(run("voice", "show", "mika", "--json").out)["kind"] == "shipped"
    assert json.loads(run("voice", "show", "f2", "--json").out)["origin"].startswith("espeak-ng")


def test_nanos_voices_are_named_without_a_path(run: test_cli.Run) -> None:
    """In a folder without models, as after an installation."""
    result = run("speak", "Seven.", "--voice", "f2", "--seed", "1", "-o", "out.wav", "-q")
    assert result.code == 0 and soundfile.info("out.wav").duration > 0.2


# -- the cache ---------------------------------------------------------------------------------------------------------


def test_the_cache_is_shown_and_cleared(run: test_cli.Run, base: Path, speak: Callable[..., Any], place: Path) -> None:
    folder = place / "cache" / "qwen3tts" / "voices"
    empty = f"cache of shipped voices: {folder} (0 files, 0 kB)"
    assert empty in run("voice", "list", "-m", base).out.decode()
    speak()
    size = sum(file.stat().st_size for file in folder.iterdir())
    full = f"cache of shipped voices: {folder} (1 file, {size / 1000:.0f} kB)"
    assert full in run("voice", "list", "-m", base).out.decode()
    assert run("voice", "cache").out.decode().strip() == full
    assert run("voice", "cache", "--clear").out.decode().strip() == empty
    assert list(folder.iterdir()) == []


def test_after_the_first_run_no_encoder_is_loaded(speak: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from qwen3tts_gguf.voice import encoder

    first = speak()
    for net in ("CodecEncoder", "SpeakerEncoder"):
        monkeypatch.setattr(encoder, net, None)  # calling it would be a TypeError
    assert speak() == first
