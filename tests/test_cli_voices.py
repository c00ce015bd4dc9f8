"""Voices on the command line: clips, transcripts, kept voices, presets, and what is refused."""

from __future__ import annotations

import dataclasses
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

from qwen3tts_convert import ConvertedPair
from qwen3tts_gguf import Voice, VoiceStore
from qwen3tts_gguf.audio import read_audio
from qwen3tts_gguf.voice.store import SUFFIX

Pair = Callable[..., ConvertedPair]
WORDS = "The light came on again."
SHORT = ("--max-frames", "2", "--seed", "1", "--threads", "1", "-o", "out.wav")
HINT = "hint: with a transcript of the clip (--ref-text) the voice comes closer to it"

run, is_one_error_line = test_cli.run, test_cli.is_one_error_line


@pytest.fixture
def pair(pair: Pair) -> Pair:
    """Models that say two frames, whatever the text is."""
    return partial(pair, ends="at-once")


@pytest.fixture
def base(pair: Pair) -> Path:
    return pair().talker


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a clip, a model and voices of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QWEN3TTS_VOICES", str(tmp_path / "voices"))
    soundfile.write("ref.wav", tiny.reference_clip(), 24_000)
    return tmp_path


@pytest.fixture
def speak(run: test_cli.Run, base: Path) -> Callable[..., Any]:
    """speak(options) -> samples: two frames by the tiny Base model, or the one given."""

    def call(*options: object, model: Path = base) -> np.ndarray:
        result = run("speak", "Hello.", "-m", model, *options, *SHORT)
        assert (result.code, result.out) == (0, b""), result.err
        call.err = result.err  # type: ignore[attr-defined]
        return read_audio(Path("out.wav"))

    return call


@pytest.fixture
def create(run: test_cli.Run, base: Path) -> Callable[..., Any]:
    """create(name, options) -> the result of `voice create name ref.wav`"""

    def call(name: str, *options: object, model: Path = base) -> Any:
        return run("voice", "create", name, "ref.wav", "-m", model, "--threads", "1", *options)

    return call


# -- clips -------------------------------------------------------------------------------------------------------------


def test_every_source_of_the_transcript_gives_the_same_speech(speak: Callable[..., Any], place: Path) -> None:
    alone = speak("--voice", "ref.wav")
    assert HINT in speak.err
    spoken = speak("--voice", "ref.wav", "--ref-text", WORDS)
    assert "hint" not in speak.err and not np.array_equal(spoken, alone)
    (place / "words.txt").write_text(f"{WORDS}\n")
    assert np.array_equal(speak("--voice", "ref.wav", "--ref-text-file", "words.txt"), spoken)
    (place / "ref.txt").write_text(f"{WORDS}\n")
    assert np.array_equal(speak("--voice", "ref.wav"), spoken) and "hint" not in speak.err
    assert np.array_equal(speak("--voice", "ref.wav", "--x-vector-only"), alone) and "hint" not in speak.err
    assert not np.array_equal(speak("--voice", "ref.wav", "--ref-text", "Something else, then."), spoken)


def test_the_pad_is_in_the_codes(speak: Callable[..., Any]) -> None:
    clip = ("--voice", "ref.wav", "--ref-text", WORDS)
    default, half, none = (speak(*clip, *pad) for pad in ([], ["--ref-pad", 0.5], ["--ref-pad", 0]))
    assert np.array_equal(default, half) and not np.array_equal(default, none)


def test_a_warning_is_one_line(speak: Callable[..., Any]) -> None:
    speak("--voice", "ref.wav", "--ref-text", "word " * 40)
    assert speak.err.count("warning: ") == 1
    assert (
        "warning: a transcript of 160 letters does not fit a clip of 2.0 s; the speech may become unintelligible: give"
        in speak.err.splitlines()[0]
    )


# -- kept voices -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [(), ("--ref-text", WORDS), ("--ref-text", WORDS, "--ref-pad", "0")], ids=len)
def test_a_saved_voice_speaks_like_its_clip(
    speak: Callable[..., Any], create: Callable[..., Any], options: tuple[str, ...]
) -> None:
    result = create("Anna 1.0", *options)
    assert (result.code, result.out) == (0, b"") and "'Anna 1.0' saved in" in result.err
    assert (HINT in result.err) == (not options)
    assert np.array_equal(speak("--voice", "Anna 1.0"), speak("--voice", "ref.wav", *options))
    if options:
        assert np.array_equal(speak("--voice", "Anna 1.0", "--x-vector-only"), speak("--voice", "ref.wav"))


def test_create_takes_transcripts_as_speak_does(create: Callable[..., Any], place: Path) -> None:
    (place / "ref.txt").write_text(WORDS)
    for name, options in {
        "near": (),
        "file": ("--ref-text-file", "ref.txt"),
        "alone": ("--x-vector-only",),
    }.items():
        assert create(name, *options, "-q").err == ""
    voices = {name: VoiceStore(place / "voices").load(name) for name in ("near", "file", "alone")}
    assert [voice.transcript for voice in voices.values()] == [WORDS, WORDS, None]


def saved(run: test_cli.Run) -> list[dict[str, Any]]:
    """What `voice list --json` has of saved voices."""
    return [voice for voice in json.loads(run("voice", "list", "--json").out) if voice["kind"] == "saved"]


def test_voices_are_listed_shown_and_deleted(run: test_cli.Run, create: Callable[..., Any], place: Path) -> None:
    assert run("voice", "list").err.startswith("no saved voices in ")
    assert saved(run) == []
    create("anna", "--ref-text", WORDS, "-l", "en")
    create("ben")
    table = run("voice", "list")
    assert table.code == 0 and table.err == ""
    assert all(word in table.out.decode() for word in ("anna", "128", "2.5 s", "en", "The light", "ben"))
    anna, ben = saved(run)
    assert (anna["name"], anna["frames"], anna["transcript"], anna["language"]) == ("anna", 31, WORDS, "en")
    assert (ben["name"], ben["frames"], ben["transcript"], ben["speaker_values"]) == ("ben", 0, None, 128)
    shown = json.loads(run("voice", "show", "anna", "--json").out)
    assert {**shown, "default": False} == {**anna, "path": str(place / "voices" / f"anna{SUFFIX}")}
    assert len(shown["clip_sha256"]) == 64 and shown["clip_rate_hz"] == 24_000
    assert shown["codec"] and shown["speaker_encoder"]
    text = run("voice", "show", "anna").out.decode()
    assert WORDS in text and "anna" in text
    assert run("voice", "delete", "anna").code == 0
    assert [voice["name"] for voice in saved(run)] == ["ben"]


def test_the_table_shows_texts_as_they_are(run: test_cli.Run, place: Path) -> None:
    """Brackets are markup to rich."""
    codes = np.zeros((3, 16), np.int32)
    VoiceStore(place / "voices").save("anna", Voice(codes=codes, transcript="[/b] a [red]word[/red]"))
    for command in (["list"], ["show", "anna"]):
        result = run("voice", *command)
        assert result.code == 0 and "[/b] a [red]word[/red]" in result.out.decode()


def test_a_damaged_voice_hides_no_other(run: test_cli.Run, create: Callable[..., Any], place: Path) -> None:
    create("anna")
    damaged = place / "voices" / f"damaged{SUFFIX}"
    damaged.write_text("nothing")
    result = run("voice", "list", "--json")
    assert [voice["name"] for voice in json.loads(result.out) if voice["kind"] == "saved"] == ["anna"]
    assert result.err == f"warning: {damaged}: not a voice file, or a damaged one (SafetensorError)\n"
    assert is_one_error_line(run("voice", "show", "damaged"))
    assert run("voice", "delete", "damaged").code == 0 and not damaged.exists()


def test_the_folder_of_voices_may_be_named(run: test_cli.Run, create: Callable[..., Any], place: Path) -> None:
    create("anna", "--voices", place / "elsewhere")
    assert (place / "elsewhere" / f"anna{SUFFIX}").is_file() and not (place / "voices").exists()
    assert "anna" in run("voice", "list", "--voices", place / "elsewhere").out.decode()


def test_without_a_folder_voices_go_to_the_users_own(
    run: test_cli.Run, create: Callable[..., Any], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import platformdirs

    monkeypatch.delenv("QWEN3TTS_VOICES")
    monkeypatch.setattr(platformdirs, "user_data_dir", lambda name, **_: str(place / "user" / name))
    create("anna")
    assert (place / "user" / "qwen3tts" / "voices" / f"anna{SUFFIX}").is_file()


def test_a_voice_is_overwritten_by_force_only(create: Callable[..., Any], place: Path) -> None:
    create("anna")
    refused = create("anna", "--ref-text", WORDS)
    assert is_one_error_line(refused) and "a voice named 'anna' exists already" in refused.err
    assert create("anna", "--ref-text", WORDS, "--force").code == 0
    assert VoiceStore(place / "voices").load("anna").transcript == WORDS


def test_speaking_with_a_saved_voice_loads_no_encoder(
    speak: Callable[..., Any], create: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from qwen3tts_gguf.voice import encoder as voice

    create("anna", "--ref-text", WORDS)

    def loaded(*_: Any) -> None:
        raise AssertionError("an encoder was loaded")

    monkeypatch.setattr(voice, "SpeakerEncoder", loaded)
    monkeypatch.setattr(voice, "CodecEncoder", loaded)
    speak("--voice", "anna")


def test_a_saved_voice_speaks_its_language_unless_another_is_given(
    speak: Callable[..., Any], create: Callable[..., Any]
) -> None:
    create("anna", "-l", "fr")
    create("ben")
    assert np.array_equal(speak("--voice", "anna"), speak("--voice", "ben", "-l", "french"))
    assert np.array_equal(speak("--voice", "anna", "-l", "de"), speak("--voice", "ben", "-l", "german"))


def test_a_voice_encoded_by_the_other_size_speaks_by_its_codes(
    speak: Callable[..., Any], create: Callable[..., Any], pair: Pair
) -> None:
    create("large", "--ref-text", WORDS, model=pair(size="tiny-1.7b").talker)
    create("small", "--ref-text", WORDS)
    large = speak("--voice", "large")
    assert (
        "warning: the voice's speaker vector was made with another model and is not used; its codes are used"
        in speak.err
    )
    assert not np.array_equal(large, speak("--voice", "small"))


def test_a_mixture_lies_between(run: test_cli.Run, speak: Callable[..., Any], place: Path) -> None:
    store = VoiceStore(place / "voices")
    vectors = {"anna": np.eye(128, dtype=np.float32)[0], "ben": np.eye(128, dtype=np.float32)[1]}
    for name, vector in vectors.items():
        store.save(name, Voice(speaker=vector))
    result = run("voice", "mix", "anna", "ben", "--weights", "0.7,0.3", "-o", "both")
    assert (result.code, result.out) == (0, b"") and "'both' saved in" in result.err
    assert store.load("both").speaker == pytest.approx(0.7 * vectors["anna"] + 0.3 * vectors["ben"])
    assert run("voice", "mix", "anna", "ben", "-o", "half", "-q").err == ""
    assert store.load("half").speaker == pytest.approx(0.5 * vectors["anna"] + 0.5 * vectors["ben"])
    assert len(speak("--voice", "both")) == 2 * 1920


def test_mixing_says_that_codes_are_left_out(run: test_cli.Run, create: Callable[..., Any], place: Path) -> None:
    create("anna", "--ref-text", WORDS)
    create("ben")
    result = run("voice", "mix", "anna", "ben", "-o", "both")
    assert result.code == 0 and "codes and transcripts were left out: only speaker vectors can be mixed" in result.err
    assert VoiceStore(place / "voices").load("both").codes is None


# -- presets and descriptions ------------------------------------------------------------------------------------------


def test_presets_and_instructions(speak: Callable[..., Any], pair: Pair) -> None:
    small, large = pair(model_type="custom_voice").talker, pair(size="tiny-1.7b", model_type="custom_voice").talker
    vivian = speak("--speaker", "vivian", model=small)
    assert np.array_equal(vivian, speak("--speaker", "ViViAn", model=small))
    assert not np.array_equal(vivian, speak("--speaker", "ryan", model=small))
    plain, slow = (speak("--speaker", "ryan", *words, model=large) for words in ([], ["--instruct", "Slowly."]))
    assert not np.array_equal(plain, slow)


def test_a_designed_voice_is_saved_and_cloned_by_a_base_model(
    run: test_cli.Run, speak: Callable[..., Any], pair: Pair, place: Path
) -> None:
    design = pair(size="tiny-1.7b", model_type="voice_design").talker
    speak("--instruct", "An old man.", "--save-voice", "keeper", "--codes", "codes.npy", model=design)
    assert "saved as voice 'keeper'" in speak.err and "warning" not in speak.err
    kept = VoiceStore(place / "voices").load("keeper")
    assert kept.transcript == "Hello." and np.array_equal(kept.codes, np.load("codes.npy"))
    for size in ("tiny", "tiny-1.7b"):
        spoken = speak("--voice", "keeper", model=pair(size=size).talker)
        assert "warning" not in speak.err
        assert not np.array_equal(spoken, speak(model=pair(size=size).talker))
    result = run("speak", "Hi.", "--instruct", "Another.", "--save-voice", "keeper", "-m", "absent.gguf")
    assert is_one_error_line(result) and "a voice named 'keeper' exists already" in result.err


def test_inspect_lists_what_a_model_accepts(run: test_cli.Run, pair: Pair) -> None:
    custom = pair(model_type="custom_voice").talker
    facts = json.loads(run("inspect", custom, "--json").out)["files"][0]["facts"]
    assert (
        facts["kind"] == "custom_voice"
        and len(facts["languages"]) == 11
        and "beijing_dialect" not in facts["languages"]
    )
    assert "vivian" in facts["speakers"] and "dylan" in facts["speakers"]
    assert "vivian" in run("inspect", custom).out.decode()


# -- codec -------------------------------------------------------------------------------------------------------------


def test_encode_then_decode_keeps_the_length(run: test_cli.Run, base: Path) -> None:
    clip = tiny.reference_clip()
    for model in (base, base.parent, base.with_name(f"mmproj-{base.name}")):
        encoded = run("codec", "encode", "ref.wav", "-o", "codes.npy", "-m", model, "--threads", 1)
        assert (encoded.code, encoded.out, encoded.err) == (0, b"", "25 frames -> codes.npy\n")
    codes = np.load("codes.npy")
    assert codes.shape == (-(-len(clip) // 1920), 16) and codes.dtype == np.int32
    assert run("codec", "decode", "codes.npy", "-o", "back.wav", "-m", base, "-q").err == ""
    back = read_audio(Path("back.wav"))
    assert len(back) == len(codes) * 1920 and np.abs(back).max() > 0.001


def test_a_stereo_clip_at_another_rate_is_encoded_too(run: test_cli.Run, base: Path) -> None:
    soundfile.write("stereo.flac", np.stack([tiny.reference_clip()] * 2, axis=1), 48_000)
    assert run("codec", "encode", "stereo.flac", "-m", base, "-q").err == ""
    assert len(np.load("codes.npy")) == -(-47_000 // 2 // 1920)


# -- what is refused ---------------------------------------------------------------------------------------------------


REF, TEXT = ["--voice", "ref.wav"], ["--ref-text", WORDS]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["speak", *TEXT], "need a clip: give the clip with --voice"),
        (["speak", "--ref-text-file", "words.txt"], "need a clip: give the clip with --voice"),
        (["speak", "-m", "{custom}", "--x-vector-only"], "need a clip: give the clip with --voice"),
        (["speak", "--ref-pad", "0"], "need a clip: give the clip with --voice"),
        (["speak", *REF, *TEXT, "--ref-text-file", "words.txt"], "give one"),
        (["speak", *REF, *TEXT, "--x-vector-only"], "give one or the other"),
        (["speak", *REF, "--ref-text-file", "words.txt", "--x-vector-only"], "give one or the other"),
        (["speak", *REF, "--ref-pad", "0"], "give --ref-text too"),
        (["speak", *REF, "--ref-text", " "], "the transcript of the clip is empty"),
        (["speak", *REF, "--ref-text-file", "empty.txt"], "the transcript of the clip is empty"),
        (["speak", *REF, "--ref-text-file", "absent.txt"], "absent.txt: no such file"),
        (["speak", *REF, "--ref-text-file", "latin1.txt"], "latin1.txt: not UTF-8"),
        (["speak", *REF, "--speaker", "vivian"], "--speaker and --voice both choose the voice"),
        (["speak", "--voice", "nobody"], "no voice named 'nobody'"),
        (["speak", "--voice", "nobody.wav"], "nobody.wav: no such file"),
        (["speak", "--voice", "../nobody"], "../nobody: no such file"),
        (["speak", "--voice", "no!body"], "'no!body' cannot be the name of a voice"),
        (["speak", "--voice", "x" * 300], "cannot be the name of a voice"),
        (["speak", "--voice", "saved", *TEXT], "'saved' is not a clip: --ref-text"),
        (["speak", "--voice", "saved", "--ref-pad", "0"], "'saved' is not a clip: --ref-text"),
        (["speak", "--voice", "codes", "--x-vector-only"], "has no speaker vector"),
        (["speak", "--voice", "other"], "made with another model"),
        (["speak", "--voice", "damaged"], "not a voice file, or a damaged one"),
        (
            ["speak", "--speaker", "vivian"],
            "this model (base) has no preset speakers: it clones the voice of a clip (--voice)",
        ),
        (["speak", "--instruct", "Slowly."], "this model (base) cannot follow instructions: it clones"),
        (["speak", "--save-voice", "../x"], "'../x' cannot be the name of a voice"),
        (
            ["speak", "--save-voice", "saved"],
            "already: choose another name, or delete that voice: qwen3tts voice delete saved",
        ),
        (["speak", "-m", "{custom}"], "needs a speaker: it has presets (--speaker): serena, vivian"),
        (["speak", "-m", "{custom}", *REF], "this model cannot clone"),
        (["speak", "-m", "{custom}", *REF, *TEXT], "this model cannot clone"),
        (["speak", "-m", "{custom}", "--voice", "saved"], "(custom_voice) cannot clone a voice: it has presets"),
        (["speak", "-m", "{custom}", "--speaker", "nobody"], "unknown speaker 'nobody'; this model knows serena"),
        (["speak", "-m", "{custom}", "--speaker", "ryan", "--instruct", "Slowly."], "cannot follow instructions"),
        (["speak", "-m", "{design}"], "needs a description of the voice: it speaks as a description says (--instruct)"),
        (["speak", "-m", "{design}", "--instruct", ""], "needs a description of the voice"),
        (["speak", "-m", "{design}", "--instruct", "A man.", "--voice", "saved"], "cannot clone a voice"),
        (["speak", "-m", "{design}", "--instruct", "A man.", "--speaker", "ryan"], "has no preset speakers"),
        (["voice", "create", "../x", "ref.wav"], "'../x' cannot be the name of a voice"),
        (
            ["voice", "create", "saved", "ref.wav"],
            "exists already: choose another name, delete that voice first, or replace it with --force",
        ),
        (["voice", "create", "x", "absent.wav"], "absent.wav: no such file"),
        (["voice", "create", "x", "words.txt"], "words.txt: not an audio file"),
        (["voice", "create", "x", "silent.wav"], "the reference is silent"),
        (["voice", "create", "x", "ref.wav", "-l", "klingon"], "unknown language 'klingon'"),
        (["voice", "create", "x", "ref.wav", "-m", "{custom}"], "this model cannot clone"),
        (["voice", "create", "x", "ref.wav", *TEXT, "--x-vector-only"], "give one or the other"),
        (["voice", "show", "nobody"], "no voice named 'nobody'"),
        (["voice", "delete", "nobody"], "no voice named 'nobody'"),
        (["voice", "delete", "mika"], "'mika' is shipped with the package and cannot be deleted"),
        (["voice", "delete", "../voices/kept"], "cannot be the name of a voice"),
        (["voice", "mix", "saved", "nobody", "-o", "x"], "no voice named 'nobody'"),
        (["voice", "mix", "saved", "-o", "x"], "two or more voices"),
        (["voice", "mix", "saved", "other", "-o", "x"], "made with different models"),
        (["voice", "mix", "saved", "codes", "-o", "x"], "only voices with a speaker vector"),
        (["voice", "mix", "saved", "saved", "-o", "saved"], "a voice named 'saved' exists already"),
        (["voice", "mix", "saved", "saved", "-o", "../x"], "cannot be the name of a voice"),
        (["voice", "mix", "saved", "saved", "--weights", "1", "-o", "x"], "a weight for each"),
        (["voice", "mix", "saved", "saved", "--weights", "1,a", "-o", "x"], "--weights takes numbers"),
        (["voice", "mix", "saved", "saved", "--weights", "1,-1", "-o", "x"], "weights must"),
        (["codec", "encode", "absent.wav"], "absent.wav: no such file"),
        (["codec", "encode", "words.txt"], "words.txt: not an audio file"),
        (["codec", "encode", "ref.wav", "-o", "codes.txt"], "codes can only be saved as .npy"),
        (["codec", "encode", "ref.wav", "-o", "no/such/codes.npy"], "cannot be written"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_what_cannot_be_is_one_line_and_exit_1(
    run: test_cli.Run, pair: Pair, base: Path, place: Path, arguments: list[str], message: str
) -> None:
    store, codes = VoiceStore(place / "voices"), np.zeros((2, 16), np.int32)
    store.save("saved", Voice(speaker=np.ones(128, np.float32)))
    store.save("other", Voice(speaker=np.ones(192, np.float32)))
    store.save("codes", Voice(codes=codes, transcript="Hi."))
    store.save("damaged", Voice(codes=codes, transcript="Hi.")).write_text("not a voice")
    (place / "words.txt").write_text(WORDS)
    (place / "empty.txt").write_text("\n")
    (place / "latin1.txt").write_bytes(b"caf\xe9")
    soundfile.write("silent.wav", np.zeros(24_000), 24_000)
    models = {
        "{custom}": pair(model_type="custom_voice"),
        "{design}": pair(size="tiny-1.7b", model_type="voice_design"),
    }
    arguments = [str(models[each].talker) if each in models else each for each in arguments]
    if arguments[0] == "speak":
        arguments += ["Hello.", *SHORT]
    if arguments[0] in ("speak", "codec") or arguments[1] == "create":
        arguments += [] if "-m" in arguments else ["-m", str(base)]
    before = sorted(place.rglob("*"))
    result = run(*arguments)
    assert is_one_error_line(result), result.err
    assert message in result.err
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize(
    "arguments",
    [
        *(["speak", "Hi.", "--ref-pad", pad] for pad in ("-1", "9", "x")),
        ["voice", "create", "x"],
        ["voice", "mix", "a", "b"],
        ["voice", "show"],
        ["voice", "nope"],
        ["speak", "Hi.", "--layout", "sideways"],
    ],
    ids=" ".join,
)
def test_a_command_not_understood_is_exit_2(run: test_cli.Run, arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.code == 2 and result.out == b"" and "Traceback" not in result.err


@pytest.mark.parametrize("group", ["voice", "codec"])
def test_a_group_alone_explains_itself(run: test_cli.Run, group: str) -> None:
    result = run(group, "--help")
    assert result.code == 0 and result.err == "" and b"--help" in result.out


def test_ctrl_c_while_listening_is_exit_130_and_leaves_no_file(
    create: Callable[..., Any], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qwen3tts_gguf.nets.codec_encoder import CodecEncoder

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    before = sorted(place.rglob("*"))
    monkeypatch.setattr(CodecEncoder, "encode", interrupted)
    result = create("anna", "--ref-text", WORDS)
    assert result.code == 130 and result.out == b"" and "Traceback" not in result.err
    assert sorted(place.rglob("*")) == before


def test_ctrl_c_while_speaking_keeps_no_voice(
    run: test_cli.Run, base: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qwen3tts_gguf.engine.mailbox import Mailbox

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt  # where the main thread waits for sound: signals reach no other

    before = sorted(place.rglob("*"))
    monkeypatch.setattr(Mailbox, "take", interrupted)
    assert run("speak", "Hello.", "-m", base, "--save-voice", "anna", *SHORT).code == 130
    assert sorted(place.rglob("*")) == before


def test_every_field_of_a_voice_is_shown(run: test_cli.Run, place: Path) -> None:
    VoiceStore(place / "voices").save("anna", Voice.preset("vivian", instruct="Slowly."))
    shown = json.loads(run("voice", "show", "anna", "--json").out)
    renamed = {"speaker": "speaker_values", "codes": "frames", "preset_name": "preset"}
    saved = {field.name for field in dataclasses.fields(Voice)} - {"notes", "shipped_name", "vector_only"}
    assert {renamed.get(name, name) for name in saved} <= set(shown)
    assert (shown["preset"], shown["instruct"]) == ("vivian", "Slowly.")
