"""`qwen3tts verify`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from ..errors import OptionError, TextError
from ..measure.verdict import Report, Subject, Thresholds
from .console import (
    DEFAULT_MODELS,
    DeviceOption,
    LanguageOption,
    MmprojOption,
    ModelOption,
    QuietOption,
    ThreadsOption,
    amx_setting,
    printable,
    read_text,
    stderr,
    stdout,
)
from .expanded import expanded
from .panels import MODEL, OUTPUT, SAMPLING, TEXT, VOICE, flag, value
from .reporting import JsonFileOption, hand_out, picture, require_outputs, stages
from .voice_options import VoiceOptions

if TYPE_CHECKING:
    from ..tts import TTS
    from ..voice.voice import Voice

__all__ = ["verify"]

_EXIT_FAILED = 4
_NOT_APPLICABLE = "not applicable"
_DEFAULT = Thresholds()


def _threshold(help: str, name: str) -> Any:
    return value("X", "Thresholds", help, name)


@expanded
def verify(
    against: Annotated[
        Path,
        value("PATH", MODEL, "Reference: a pair made from the same checkpoint, preferably F32.", "--against"),
    ],
    model: ModelOption = DEFAULT_MODELS,
    mmproj: MmprojOption = None,
    against_mmproj: Annotated[
        Path | None, value("FILE", MODEL, "Mmproj file of the reference.", "--against-mmproj")
    ] = None,
    text: Annotated[
        list[str] | None,
        value("TEXT", TEXT, "Text to speak; may be repeated. Default: five built-in texts.", "--text"),
    ] = None,
    texts: Annotated[Path | None, value("FILE", TEXT, "File with one text per line.", "--texts")] = None,
    voice_options: VoiceOptions = VoiceOptions(),
    speaker: Annotated[
        str | None,
        value("NAME", VOICE, "Preset speaker of a CustomVoice model. Default: the first.", "--speaker"),
    ] = None,
    language: LanguageOption = None,
    seed: Annotated[int, value("N", SAMPLING, "Seed of the reference's speech.", "--seed", min=0)] = 0,
    max_frames: Annotated[int, value("N", TEXT, "Most frames per text, of 80 ms each.", "--max-frames", min=1)] = 75,
    min_cosine: Annotated[
        float, _threshold("Lowest mean cosine of the talker's hidden states.", "--min-cosine")
    ] = _DEFAULT.min_cosine,
    max_kl: Annotated[float, _threshold("Highest mean KL of code 0, in nats.", "--max-kl")] = _DEFAULT.max_kl,
    min_top1: Annotated[
        float, _threshold("Lowest top-1 agreement of code 0, 0 to 1.", "--min-top1")
    ] = _DEFAULT.min_top1,
    max_predictor_kl: Annotated[
        float, _threshold("Highest mean KL of codes 1 to 15, in nats.", "--max-predictor-kl")
    ] = _DEFAULT.max_predictor_kl,
    min_predictor_top1: Annotated[
        float, _threshold("Lowest mean top-1 agreement of codes 1 to 15, 0 to 1.", "--min-predictor-top1")
    ] = _DEFAULT.min_predictor_top1,
    min_snr: Annotated[float, _threshold("Lowest SNR of the codec, in dB.", "--min-snr")] = _DEFAULT.min_snr,
    min_speaker: Annotated[
        float, _threshold("Lowest cosine of the speaker vectors.", "--min-speaker")
    ] = _DEFAULT.min_speaker,
    min_greedy: Annotated[
        float, _threshold("Lowest share of equal greedy codes, 0 to 1; 0 accepts any.", "--min-greedy")
    ] = _DEFAULT.min_greedy,
    force: Annotated[bool, flag(MODEL, "Also compare files that do not record their checkpoint.", "--force")] = False,
    threads: ThreadsOption = None,
    device: DeviceOption = "cpu",
    json_file: JsonFileOption = None,
    plot: Annotated[
        Path | None, value("FILE", OUTPUT, "Picture of the agreement by codebook: .png or .svg.", "--plot")
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Measure what quantizing changed, against an F32 or F16 pair of the same checkpoint.

    The reference speaks some texts. Both models are then given its codes, frame by frame, and their predictions of the
    next code are compared. Without --voice no voice is used. The exit code is 4 if a threshold is not met.

    Example:

      qwen3tts verify --model models/my-Q4_0.gguf --against models/my-F32.gguf

    A picture (--plot) needs: pip install 'qwen3tts-gguf\\[plot]'
    """
    require_outputs(json_file, plot)
    voice = voice_options.voice
    if voice is not None and speaker is not None:
        raise OptionError("--speaker and --voice both choose the voice: give one of them")
    lines = [*(text or []), *(_lines(texts) if texts is not None else [])]

    from ..measure.benchmark import plain_voice
    from ..measure.verification import TEXTS, compare
    from ..tts import SpeechOptions
    from ..voice.voice import Voice

    def choose(tts: TTS) -> Voice | None:
        if speaker is not None:
            return Voice.preset(speaker)
        return voice_options.chosen(tts, quiet) or plain_voice(tts)

    report = compare(
        model,
        against,
        mmproj=mmproj,
        against_mmproj=against_mmproj,
        texts=lines or TEXTS,
        options=SpeechOptions(language=language, seed=seed, max_frames=max_frames),
        choose_voice=choose,
        clip=Path(voice) if voice is not None and Path(voice).is_file() else None,
        unrecorded=force,
        n_threads=threads,
        amx=amx_setting(),
        device=device,
        on_stage=stages(quiet),
    )
    failures = Thresholds(
        min_cosine=min_cosine, max_kl=max_kl, min_top1=min_top1, max_predictor_kl=max_predictor_kl,
        min_predictor_top1=min_predictor_top1, min_snr=min_snr, min_speaker=min_speaker, min_greedy=min_greedy,
    ).failures(report)  # fmt: skip
    hand_out(report.as_dict() | {"failures": failures}, json_file, lambda: _print(report))
    if plot is not None:
        _draw(report, plot)
    for failure in failures:
        stderr.print(f"failed: {failure}", soft_wrap=True, markup=False)
    if failures:
        raise typer.Exit(_EXIT_FAILED)


def _lines(file: Path) -> list[str]:
    lines = [line for line in read_text(file).splitlines() if line.strip()]
    if not lines:
        raise TextError(f"{file}: the file has no text")
    return lines


# -- the tables --------------------------------------------------------------------------------------------------------


def _print(report: Report) -> None:
    facts = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    rows = {
        "model": _described(report.model),
        "against": _described(report.against),
        "compared": f"{report.frames} frames, texts: {len(report.texts)}",
        "talker's hidden state": f"cosine {report.hidden_cosine:.5f}, lowest {report.hidden_cosine_min:.5f}",
        "codec": _codec(report),
        "speaker vector": _NOT_APPLICABLE if report.speaker_cosine is None else f"cosine {report.speaker_cosine:.5f}",
        "greedy runs": f"{report.greedy_equal:.1%} of codes equal",
    }
    for name, row in rows.items():
        facts.add_row(name, escape(printable(row)))
    stdout.print(facts)
    stdout.print()

    books = Table("code", "KL", "top-1", "top-5", box=None, padding=(0, 2, 0, 0))
    named = [*((str(i), book) for i, book in enumerate(report.codebooks)), ("1 to 15", report.predictor)]
    for code, book in named:
        books.add_row(code, f"{book.kl:.4f}", f"{book.top1:.1%}", f"{book.top5:.1%}")
    stdout.print(books)
    stdout.print()

    texts = Table("text", "frames", "greedy: equal", "differ from frame", box=None, padding=(0, 2, 0, 0))
    for spoken in report.texts:
        differ = "never" if spoken.first_difference is None else f"{spoken.first_difference} of {spoken.greedy_frames}"
        texts.add_row(escape(spoken.text), str(spoken.frames), f"{spoken.greedy_equal:.1%}", differ)
    stdout.print(texts)


def _described(subject: Subject) -> str:
    return f"{subject.name}: " + ", ".join(f"{part} {'+'.join(names)}" for part, names in subject.types.items())


def _codec(report: Report) -> str:
    if report.max_error == 0:
        return "equal samples"
    return f"SNR {report.snr_db:.1f} dB, largest error {report.max_error:.5f}"


# -- the picture -------------------------------------------------------------------------------------------------------


def _draw(report: Report, plot: Path) -> None:
    """Agreement over divergence, by codebook."""
    with picture(plot, inches=(8, 4.5)) as figure:
        above, below = figure.subplots(2, sharex=True)
        for of, width, color in (("top5", 0.8, "#bbccee"), ("top1", 0.5, "#4477aa")):
            shares = [100 * getattr(book, of) for book in report.codebooks]
            above.bar(range(len(shares)), shares, width, color=color, label=f"{of[:-1]}-{of[-1]}")
        above.set_ylabel("agreement, %")
        above.set_ylim(0, 100)
        above.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8)
        below.bar(range(len(report.codebooks)), [book.kl for book in report.codebooks], 0.5, color="#cc3311")
        below.set_ylabel("KL, nats")
        below.set_xlabel("codebook: 0 by the talker, 1 to 15 by the code predictor")
        below.set_xticks(range(len(report.codebooks)))
        types = ["+".join(subject.types["talker"]) for subject in (report.model, report.against)]
        above.set_title(f"{report.model.name}, {types[0]} against {types[1]}, {report.frames} frames", size=9)
