"""`qwen3tts verify`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from ..errors import OptionError, TextError
from ..measure.verdict import Report, Subject, Thresholds
from .console import (
    DEFAULT_MODELS,
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
from .reporting import JsonFileOption, hand_out, picture, require_outputs, stages
from .voice_options import VoiceOptions

if TYPE_CHECKING:
    from ..tts import TTS
    from ..voice.voice import Voice

__all__ = ["verify"]

_EXIT_FAILED = 4
_NOT_APPLICABLE = "not applicable"
_DEFAULT = Thresholds()


@expanded
def verify(
    against: Annotated[Path, typer.Option(help="The reference: a pair of the same checkpoint, best F32.")],
    model: ModelOption = DEFAULT_MODELS,
    mmproj: MmprojOption = None,
    against_mmproj: Annotated[Path | None, typer.Option(help="The same for the reference.")] = None,
    text: Annotated[list[str] | None, typer.Option(help="What to say; may be given again. Default: five.")] = None,
    texts: Annotated[Path | None, typer.Option(help="The same from a file, one a line.")] = None,
    voice_options: VoiceOptions = VoiceOptions(),
    speaker: Annotated[str | None, typer.Option(help="A preset of a CustomVoice model. Default: its first.")] = None,
    language: LanguageOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Of what the reference says.")] = 0,
    max_frames: Annotated[int, typer.Option(min=1, help="Of each text; 80 ms each.")] = 75,
    min_cosine: Annotated[float, typer.Option(help="Of the talker's hidden states, the mean.")] = _DEFAULT.min_cosine,
    max_kl: Annotated[float, typer.Option(help="Of code 0, the mean in nats.")] = _DEFAULT.max_kl,
    min_top1: Annotated[float, typer.Option(help="Of code 0, 0 to 1.")] = _DEFAULT.min_top1,
    max_predictor_kl: Annotated[float, typer.Option(help="Mean of codes 1 to 15.")] = _DEFAULT.max_predictor_kl,
    min_predictor_top1: Annotated[float, typer.Option(help="Mean of codes 1 to 15.")] = _DEFAULT.min_predictor_top1,
    min_snr: Annotated[float, typer.Option(help="Of the codec, in dB.")] = _DEFAULT.min_snr,
    min_speaker: Annotated[float, typer.Option(help="Cosine of the speaker vectors.")] = _DEFAULT.min_speaker,
    min_greedy: Annotated[float, typer.Option(help="Share of equal greedy codes; 0: any.")] = _DEFAULT.min_greedy,
    force: Annotated[
        bool, typer.Option("--force", help="Also compare files that do not record their checkpoint.")
    ] = False,
    threads: ThreadsOption = None,
    json_file: JsonFileOption = None,
    plot: Annotated[Path | None, typer.Option(help="A picture of agreement by codebook: .png or .svg.")] = None,
    quiet: QuietOption = False,
) -> None:
    """Tell what quantizing changed: hold a model against an F32 or F16 pair of the same checkpoint.

    The reference speaks some texts; both models are then led over its codes, frame by frame, and what they expect next
    is compared. Without --voice a Base model chooses its voice. Exit code 4 if a threshold is not kept.

    A picture needs: pip install 'qwen3tts-gguf\\[plot]'
    """
    require_outputs(json_file, plot)
    voice = voice_options.voice
    if voice is not None and speaker is not None:
        raise OptionError("--speaker and --voice both choose who speaks: give one")
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
        raise TextError(f"{file}: there is no text in it")
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
    for name, value in rows.items():
        facts.add_row(name, escape(printable(value)))
    stdout.print(facts)
    stdout.print()

    books = Table("code", "KL", "top-1", "top-5", box=None, padding=(0, 2, 0, 0))
    named = [*((str(i), book) for i, book in enumerate(report.codebooks)), ("1 to 15", report.predictor)]
    for code, book in named:
        books.add_row(code, f"{book.kl:.4f}", f"{book.top1:.1%}", f"{book.top5:.1%}")
    stdout.print(books)
    stdout.print()

    texts = Table("text", "frames", "greedy: equal", "part at frame", box=None, padding=(0, 2, 0, 0))
    for spoken in report.texts:
        parted = "never" if spoken.parted is None else f"{spoken.parted} of {spoken.greedy_frames}"
        texts.add_row(escape(spoken.text), str(spoken.frames), f"{spoken.greedy_equal:.1%}", parted)
    stdout.print(texts)


def _described(subject: Subject) -> str:
    return f"{subject.name}: " + ", ".join(f"{part} {'+'.join(names)}" for part, names in subject.types.items())


def _codec(report: Report) -> str:
    if report.max_error == 0:
        return "the very same samples"
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
