"""`qwen3tts verify` and the comparison it makes: what changed in a model is found, and found where it changed."""

from __future__ import annotations

import importlib.util
import json
import shutil
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import test_cli
import tiny

from qwen3tts_convert import ConvertedPair, convert
from qwen3tts_gguf import TTS, SpeechOptions, Voice
from qwen3tts_gguf.errors import ModelFileError, TextError
from qwen3tts_gguf.measure import verification
from qwen3tts_gguf.measure.verdict import Report
from qwen3tts_gguf.measure.verification import _answers, _written, compare
from qwen3tts_gguf.model.gguf_file import GgufFile
from qwen3tts_gguf.speech.prompt import Layout

Pair = Callable[..., ConvertedPair]

TEXTS = ("Hello.", "今天天气很好。")
SHORT = SpeechOptions(seed=0, max_frames=6)

run = test_cli.run


def compared(model: Path, against: Path, **changes: Any) -> Report:
    return compare(model, against, **{"texts": TEXTS, "options": SHORT, "n_threads": 1, **changes})


def changed(pair: ConvertedPair, folder: Path, *tensors: str, by: float = 0.3) -> Path:
    """A copy of an F32 pair in which some tensors have noise on them -> its talker."""
    copies = [Path(shutil.copy(half, folder)) for half in (pair.talker, pair.mmproj)]
    rng = np.random.default_rng(0)
    for copy in copies:
        found = GgufFile(copy).tensors
        for info in (found[name] for name in tensors if name in found):
            values = np.memmap(copy, np.float32, "r+", info.offset, info.shape)
            values += by * values.std() * rng.standard_normal(info.shape).astype(np.float32)
            values.flush()
    return copies[0]


def without_provenance(pair: ConvertedPair, folder: Path, *halves: str) -> Path:
    """A copy of a pair in which some halves do not record their checkpoint -> its talker."""
    for name, half in (("talker", pair.talker), ("mmproj", pair.mmproj)):
        data = half.read_bytes()
        assert b"tts.source.sha256" in data
        renamed = data.replace(b"tts.source.sha256", b"tts.source.sha000") if name in halves else data
        (folder / half.name).write_bytes(renamed)
    return folder / pair.talker.name


@pytest.fixture(scope="module")
def f32(pair: Pair) -> Path:
    return pair().talker


@pytest.fixture(scope="module")
def tts(f32: Path) -> TTS:
    """On one thread: frames this small only wait for each other."""
    return TTS(f32, n_threads=1)


@pytest.fixture(scope="module")
def exact(f32: Path) -> Report:
    return compared(f32, f32)


@pytest.fixture(scope="module")
def q8_0(pair: Pair, f32: Path) -> Report:
    return compared(pair("q8_0", "f16").talker, f32)


# -- what is found -----------------------------------------------------------------------------------------------------


def test_a_model_against_itself_is_exact(exact: Report) -> None:
    assert exact.frames == 12 and [spoken.frames for spoken in exact.texts] == [6, 6]
    assert exact.hidden_cosine == exact.hidden_cosine_min == 1
    assert all(book.kl == 0 and book.top1 == book.top5 == 1 for book in exact.codebooks) and len(exact.codebooks) == 16
    assert exact.snr_db == np.inf and exact.max_error == 0
    assert exact.speaker_cosine == 1
    assert exact.greedy_equal == 1 and [spoken.first_difference for spoken in exact.texts] == [None, None]
    assert exact.model == exact.against and exact.model.types["talker"] == ["F32"]


def test_fewer_bits_agree_less(pair: Pair, f32: Path, q8_0: Report) -> None:
    q4_0 = compared(pair("q4_0", "f16").talker, f32)
    assert 0 < q8_0.codebooks[0].kl < 0.1 * q4_0.codebooks[0].kl
    assert 0 < q8_0.predictor.kl < 0.1 * q4_0.predictor.kl
    assert 1 > q8_0.hidden_cosine > q8_0.hidden_cosine_min > q4_0.hidden_cosine > 0.9
    assert q8_0.predictor.top1 > q4_0.predictor.top1
    assert q8_0.predictor.top5 >= q8_0.predictor.top1
    assert q4_0.snr_db == q8_0.snr_db  # the codec is F16 in both
    assert 35 < q8_0.snr_db < 80 and 0 < q8_0.max_error < 0.1
    assert q8_0.speaker_cosine == 1  # F32 in both
    assert q8_0.model.types["talker"] == ["Q8_0"] and q8_0.against.types["talker"] == ["F32"]


@pytest.mark.parametrize(
    ("tensor", "found"),
    [
        ("blk.1.ffn_down.weight", {"hidden", "code 0", "codes 1..15"}),
        ("a.gen.code.head.weight", {"codes 1..15"}),
        ("a.gen.wav.dac.entry.weight", {"codec"}),
        ("a.conv1d.0.weight", {"speaker"}),
    ],
)
def test_a_change_is_found_where_it_was_made(
    pair: Pair, f32: Path, tmp_path: Path, tensor: str, found: set[str]
) -> None:
    report = compared(changed(pair(), tmp_path, tensor), f32)
    differs = {
        "hidden": report.hidden_cosine < 1,
        "code 0": report.codebooks[0].kl > 0,
        "codes 1..15": min(book.kl for book in report.codebooks[1:]) > 0,
        "codec": report.snr_db < 100 and report.max_error > 0,
        "speaker": report.speaker_cosine is not None and report.speaker_cosine < 1,
    }
    assert {name for name, is_so in differs.items() if is_so} == found


def test_weights_that_are_not_numbers_are_an_error(pair: Pair, f32: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="damaged"):
        compared(changed(pair(), tmp_path, "output_norm.weight", by=np.nan), f32)


def test_one_early_difference_counts_once(pair: Pair, f32: Path) -> None:
    """Greedy runs differ for good once they differ; teacher-forced frames still agree."""
    report = compared(pair("q8_0", "f16").talker, f32, options=SpeechOptions(seed=0, max_frames=20))
    assert report.greedy_equal < 0.5 < 0.9 < report.codebooks[0].top1
    for spoken in report.texts:
        assert spoken.first_difference is not None and spoken.greedy_frames == 20
        assert spoken.first_difference / 20 <= spoken.greedy_equal


def test_the_end_of_a_run_is_where_it_parts() -> None:
    line = verification._Line("Hello.", np.zeros((5, 16), np.int32))
    codes = np.arange(64, dtype=np.int32).reshape(4, 16)
    shorter = verification._spoken(line, codes[:3], codes)
    assert (shorter.frames, shorter.greedy_frames, shorter.greedy_equal, shorter.first_difference) == (5, 4, 0.75, 3)
    assert verification._spoken(line, codes, codes).first_difference is None


# -- how it is asked ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["whole", "stepwise"])
@pytest.mark.parametrize("voice", [None, Voice(codes=np.full((12, 16), 9, np.int32), transcript="Before.")])
def test_forced_answers_are_what_speaking_computes(tts: TTS, layout: Layout, voice: Voice | None) -> None:
    """The likeliest codes along a greedy run's own codes are those codes, and its samples are the run's."""
    options = SpeechOptions(greedy=True, max_frames=8, repetition_penalty=1.0, layout=layout)
    script = _written(tts, voice, TEXTS, options, clip=None)
    for line, answer in zip(script.lines, _answers(tts, script, lambda _: None), strict=True):
        assert np.array_equal(answer.logits.argmax(axis=1), line.codes[:, 0])
        assert np.array_equal(answer.predictor.argmax(axis=2), line.codes[:, 1:])
        with tts.utter(line.text, voice, options) as utterance:
            utterance.finish()
        assert np.array_equal(answer.samples, utterance.samples)


def test_the_script_is_sampled_and_the_runs_are_greedy(tts: TTS) -> None:
    script = _written(tts, None, TEXTS, SHORT, clip=None)
    for line, answer in zip(script.lines, _answers(tts, script, lambda _: None), strict=True):
        for options, codes in ((SHORT, line.codes), (replace(SHORT, greedy=True), answer.greedy)):
            with tts.utter(line.text, None, options) as utterance:
                utterance.finish()
            assert len(codes) == 6 and np.array_equal(utterance.codes, codes)


def test_tokens_that_are_never_chosen_do_not_count(tts: TTS) -> None:
    script = _written(tts, None, TEXTS[:1], SHORT, clip=None)
    (answer,) = _answers(tts, script, lambda _: None)
    codebook_size = tts.engine.predictor.config.codebook_size
    assert answer.logits.shape == (6, codebook_size + 1)  # and end of speech
    assert answer.predictor.shape == (6, 15, codebook_size) and np.isfinite(answer.logits).all()


def test_the_pairs_are_in_memory_one_after_the_other(
    pair: Pair, f32: Path, q8_0: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[weakref.ref[TTS]] = []

    class Watched(TTS):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            assert all(earlier() is None for earlier in loaded)
            super().__init__(*arguments, **named)
            loaded.append(weakref.ref(self))

    monkeypatch.setattr(verification, "TTS", Watched)
    assert compared(pair("q8_0", "f16").talker, f32) == q8_0
    assert len(loaded) == 2


def test_the_reference_chooses_the_voice_for_both(pair: Pair, f32: Path, q8_0: Report) -> None:
    asked = []

    def choose(tts: TTS) -> Voice:
        asked.append(tts.name)
        return Voice.from_audio(tiny.reference_clip(), tts, rate_hz=24_000, transcript="The words of the clip.")

    in_context = compared(pair("q8_0", "f16").talker, f32, choose_voice=choose)
    assert len(asked) == 1
    assert in_context.codebooks != q8_0.codebooks and in_context.hidden_cosine > 0.99


def test_the_speaker_encoders_get_the_clip(pair: Pair, f32: Path, tmp_path: Path) -> None:
    other = changed(pair(), tmp_path, "a.conv1d.0.weight")
    clip = tmp_path / "clip.wav"
    soundfile.write(clip, tiny.reference_clip(), 24_000)
    of_clip, of_speech = (compared(other, f32, clip=which).speaker_cosine for which in (clip, None))
    assert of_clip is not None and of_speech is not None and of_clip != of_speech


@pytest.mark.parametrize("kind", ["custom_voice", "voice_design"])
def test_models_that_do_not_clone_have_no_speaker_vector(pair: Pair, kind: str) -> None:
    report = compared(pair("q8_0", "f16", model_type=kind).talker, pair(model_type=kind).talker)
    assert report.speaker_cosine is None and report.hidden_cosine > 0.99


# -- of the same checkpoint --------------------------------------------------------------------------------------------


@pytest.fixture
def not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails here fails before minutes of work."""
    monkeypatch.setattr(verification, "TTS", None)


@pytest.mark.usefixtures("not_loaded")
def test_another_checkpoint_is_refused(f32: Path, tmp_path: Path) -> None:
    other = convert(tiny.write_checkpoint(tmp_path / "other", seed=1), tmp_path, type="f32").talker
    for unrecorded in False, True:
        with pytest.raises(ModelFileError, match="were converted from different checkpoints"):
            compared(other, f32, unrecorded=unrecorded)


@pytest.mark.usefixtures("not_loaded")
@pytest.mark.parametrize("half", ["talker", "mmproj"])
def test_a_checkpoint_that_is_not_recorded_is_refused(pair: Pair, f32: Path, tmp_path: Path, half: str) -> None:
    silent = without_provenance(pair(), tmp_path, half)
    for model, against in ((silent, f32), (f32, silent)):
        with pytest.raises(ModelFileError, match=r"does not record its checkpoint, .* `unrecorded`") as caught:
            compared(model, against)
        assert str(caught.value).startswith(str(tmp_path))


def test_a_checkpoint_that_is_not_recorded_is_compared_on_request(
    pair: Pair, f32: Path, exact: Report, tmp_path: Path
) -> None:
    silent = without_provenance(pair(), tmp_path, "talker", "mmproj")
    assert compared(silent, f32, unrecorded=True).codebooks == exact.codebooks


@pytest.mark.usefixtures("not_loaded")
def test_another_geometry_is_refused_on_request_too(pair: Pair, f32: Path, tmp_path: Path) -> None:
    larger = without_provenance(pair(size="tiny-1.7b"), tmp_path, "talker", "mmproj")
    with pytest.raises(ModelFileError, match="models of different sizes"):
        compared(larger, f32, unrecorded=True)


@pytest.mark.usefixtures("not_loaded")
def test_without_a_text_there_is_nothing_to_compare(f32: Path) -> None:
    with pytest.raises(TextError, match="there is no text"):
        compared(f32, f32, texts=())


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture
def verify(run: test_cli.Run, f32: Path) -> Callable[..., SimpleNamespace]:
    """verify(model, *arguments): against the F32 pair, briefly"""

    def call(model: Path, *arguments: object, against: Path = f32) -> SimpleNamespace:
        short = ("--max-frames", 3, "--threads", 1)
        return run("verify", "--model", model, "--against", against, *short, *arguments)

    return call


def test_a_model_that_meets_its_thresholds_ends_well(verify: Callable[..., SimpleNamespace], f32: Path) -> None:
    done = verify(f32, "--min-greedy", 1)
    assert (done.code, done.err) == (0, "")
    out = done.out.decode()
    for word in ("against", "15 frames, texts: 5", "hidden state", "equal samples", "top-1", "top-5", "never"):
        assert word in out


def test_a_model_that_does_not_is_named_its_failures_by_exit_code_4(
    verify: Callable[..., SimpleNamespace], pair: Pair, tmp_path: Path
) -> None:
    file = tmp_path / "verify.json"
    broken = changed(pair(), tmp_path, "a.gen.wav.dac.entry.weight", by=1.0)
    done = verify(broken, "--text", "Hello.", "--json", file)
    assert done.code == 4 and b"SNR" in done.out
    (line,) = done.err.splitlines()
    assert line.startswith("failed: the codec's SNR in dB is ") and line.endswith("at least 40 (min_snr)")
    assert json.loads(file.read_text("utf-8"))["failures"] == [line.removeprefix("failed: ")]
    assert verify(broken, "--text", "Hello.", "--min-snr", -100).code == 0


def test_thresholds_of_every_kind_can_be_set(verify: Callable[..., SimpleNamespace], pair: Pair) -> None:
    impossible = {
        "--min-cosine": 2, "--max-kl": -1, "--min-top1": 2, "--max-predictor-kl": -1, "--min-predictor-top1": 2,
        "--min-snr": 999, "--min-speaker": 2, "--min-greedy": 2,
    }  # fmt: skip
    options = [word for option in impossible.items() for word in option]
    done = verify(pair("q8_0", "f16").talker, "--text", "Hello.", *options)
    assert done.code == 4 and len(done.err.splitlines()) == len(impossible)
    for option in impossible:
        assert f"({option.removeprefix('--').replace('-', '_')})" in done.err


def test_json_on_stdout_is_all_there_is(verify: Callable[..., SimpleNamespace], f32: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("Two.\n\n三。\n", "utf-8")
    done = verify(f32, "--text", "One.", "--texts", texts, "--json", "-")
    report = json.loads(done.out)
    assert [spoken["text"] for spoken in report["texts"]] == ["One.", "Two.", "三。"]
    assert report["frames"] == 9 and report["failures"] == [] and (done.code, done.err) == (0, "")


def test_verify_with_a_clip_and_with_a_preset(
    verify: Callable[..., SimpleNamespace], f32: Path, pair: Pair, tmp_path: Path
) -> None:
    clip = tmp_path / "ref.wav"
    soundfile.write(clip, tiny.reference_clip(), 24_000)
    done = verify(f32, "--text", "Hello.", "--voice", clip, "--ref-text", "The words of the clip.")
    assert done.code == 0, done.err
    preset = pair(model_type="custom_voice").talker
    done = verify(preset, "--text", "Hello.", "--speaker", "serena", against=preset)
    assert done.code == 0, done.err
    assert b"not applicable" in done.out
    assert "unknown speaker 'nobody'" in verify(preset, "--speaker", "nobody", against=preset).err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--plot", "agreement.txt"), "pictures can only be saved as .png or .svg"),
        (("--plot", "nowhere/agreement.png"), "there is no folder nowhere"),
        (("--json", "nowhere/verify.json"), "there is no folder nowhere"),
        (("--ref-text", "Words."), "give the clip with --voice"),
        (("--speaker", "serena"), "has no preset speakers"),
        (("--speaker", "serena", "--voice", "ref.wav"), "both choose the voice"),
        (("--texts", "nowhere.txt"), "nowhere.txt: no such file"),
        (("--texts", "/dev/null"), "the file has no text"),
        (("--against-mmproj", "nowhere.gguf"), "nowhere.gguf: no such file"),
    ],
)
def test_errors_in_one_line(
    verify: Callable[..., SimpleNamespace], f32: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = verify(f32, *arguments)
    assert test_cli.is_one_error_line(done) and message in done.err


def test_texts_must_be_utf_8(verify: Callable[..., SimpleNamespace], f32: Path, tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes(b"h\xf6ren")
    done = verify(f32, "--texts", tmp_path / "latin.txt")
    assert test_cli.is_one_error_line(done) and "latin.txt: not UTF-8 text" in done.err


def test_the_reference_has_to_be_named(run: test_cli.Run, f32: Path) -> None:
    done = run("verify", "--model", f32)
    assert done.code == 2 and "--against" in done.err


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="needs the extra `plot`")
@pytest.mark.parametrize(("name", "start"), [("books.png", b"\x89PNG"), ("books.svg", b"<?xml")])
def test_the_picture(
    verify: Callable[..., SimpleNamespace], f32: Path, tmp_path: Path, name: str, start: bytes
) -> None:
    done = verify(f32, "--text", "Hello.", "--plot", tmp_path / name)
    assert done.code == 0, done.err
    assert (tmp_path / name).read_bytes().startswith(start)
