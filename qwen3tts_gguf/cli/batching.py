"""`qwen3tts batch`"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from ..errors import OptionError
from .batch_options import ClusterOptions, DataSet, RowOptions, RunOptions, shards_of
from .batch_report import print_estimate, print_status
from .console import (
    DEFAULT_MODELS,
    DeviceOption,
    LanguageOption,
    MmprojOption,
    ModelOption,
    QuietOption,
    ThreadsOption,
    VoicesOption,
    amx_setting,
    model_or_nano,
    print_notes,
    progress,
    stderr,
    voices_folder,
)
from .expanded import expanded
from .panels import OUTPUT, SAMPLING, flag, value
from .reporting import JsonFileOption, require_outputs

if TYPE_CHECKING:
    from ..batch.cluster import Worker
    from ..batch.job import Job
    from ..batch.project import Project

__all__ = ["batch"]

_EXIT_FAILED_ROWS = 5
_COLUMNS = (
    TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
    TextColumn("{task.fields[hours]:.2f} h of speech, {task.fields[failed]} failed"),
)  # fmt: skip


@expanded
def batch(
    context: typer.Context,
    table: Annotated[
        str | None,
        typer.Argument(metavar="TABLE", help="A .csv, .tsv, .jsonl or .parquet file, or its URL.", show_default=False),
    ] = None,
    output: Annotated[
        str | None,
        value("FOLDER", OUTPUT, "Folder of the data set, or a URL that fsspec knows.", "--output", "-o"),
    ] = None,
    model: ModelOption = DEFAULT_MODELS,
    mmproj: MmprojOption = None,
    rows: RowOptions = RowOptions(),
    language: LanguageOption = None,
    voices: VoicesOption = None,
    data_set: DataSet = DataSet(),
    seed: Annotated[
        int, value("N", SAMPLING, "Seed of the batch; a row's seed comes from it and the row's id.", min=0)
    ] = 0,
    greedy: Annotated[bool, flag(SAMPLING, "Take the likeliest code each time; sounds worse.", "--greedy")] = False,
    max_frames: Annotated[
        int | None,
        value(
            "N",
            SAMPLING,
            "Most frames of a row, 80 ms each; one that needs more has failed. Default: by its text.",
            min=1,
        ),
    ] = None,
    retries: Annotated[int, value("N", SAMPLING, "New attempts of a row that does not end.", min=0)] = 2,
    run: RunOptions = RunOptions(),
    cluster: ClusterOptions = ClusterOptions(),
    threads: ThreadsOption = None,
    device: DeviceOption = "cpu",
    json_file: JsonFileOption = None,
    quiet: QuietOption = False,
) -> None:
    """Speak every row of TABLE into a data set.

      qwen3tts batch lines.csv -o out --text sentence --id key --voice-column speaker

      qwen3tts batch lines.parquet -o out --as parquet --shards 3/10

      qwen3tts batch --status out

    The model is loaded once and several rows are spoken at once. A row always has the same samples, from its id and
    --seed. Stop it at any time: the same command continues where it was, and several processes may share one folder.

    A row that cannot be spoken is a row with its error. The exit code is 0 when all rows are done, 5 when some of them
    failed; --retry-failed makes those again.
    """
    if run.status is not None:
        require_outputs(json_file, run.plot)
        print_status(run.status, json_file, run.plot)
        return
    if table is None or (output is None and not run.estimate):
        raise OptionError(
            "a batch needs a table, and a folder for the data set", hint="qwen3tts batch lines.csv -o out"
        )
    if run.plot is not None:
        raise OptionError("--plot belongs to --status")
    if cluster.workers is not None and cluster.ray is None:
        raise OptionError("--workers belongs to --ray")
    if run.restart and run.shards is not None:
        raise OptionError("--restart would delete what the other processes of --shards have made")
    from ..batch.job import Job
    from ..speech.options import SpeechOptions

    job = Job(
        table=table, text=rows.text, id=rows.id, voice_column=rows.voice_column,
        language_column=rows.language_column, instruct_column=rows.instruct_column, voice=_absolute(rows.voice),
        instruct=rows.instruct, seed=seed, format=data_set.format.value, container=data_set.container.value,
        shard_rows=data_set.shard_rows, on_error=data_set.on_error.value,
        options=SpeechOptions(language=language, greedy=greedy, max_frames=max_frames, retries=retries),
    )  # fmt: skip
    asked = model_or_nano(model, context)
    if asked is None:
        raise OptionError(f"there is no model in {model}/", hint="name one with --model; nano is the one for trying")
    machine = _Machine(asked, mmproj, threads, _lanes(run.lanes), device, voices_folder(voices))
    if run.estimate:
        print_estimate(machine.estimate(job), json_file)
        return
    assert output is not None  # required above
    project = _project(machine, job, output, run, quiet)
    shards = shards_of(run.shards, project.n_shards)
    if run.retry_failed:
        from ..batch.shard import prepare_retry

        for shard in shards:
            prepare_retry(project, shard)
    try:
        with progress(*_COLUMNS, quiet=quiet) as bar:
            _work(project, shards, machine, cluster, bar)
    except (KeyboardInterrupt, SystemExit):
        stderr.print("stopped: the same command continues from here", soft_wrap=True)
        raise
    _end(project, shards, output, quiet)


class _Machine:
    """The model, and how this machine runs it."""

    def __init__(
        self, model: Path, mmproj: Path | None, n_threads: int | None, n_lanes: int | None, device: str, voices: Path
    ) -> None:
        self.model, self.mmproj, self.n_threads, self.n_lanes = model, mmproj, n_threads, n_lanes
        self.device, self.voices = device, voices

    def fingerprint(self) -> str:
        from ..digests import model_fingerprint

        return model_fingerprint(self.model, self.mmproj)

    def load(self) -> Any:
        tts = self.worker().load()
        print_notes(tts.notes)
        return tts

    def worker(self) -> Worker:
        """How this machine loads it, and each machine of a cluster too."""
        from ..batch.cluster import Worker
        from ..model import nano

        model = os.path.abspath(self.model) if nano.resolved(self.model) == self.model else str(self.model)
        mmproj = None if self.mmproj is None else os.path.abspath(self.mmproj)
        return Worker(model, mmproj, self.n_threads, self.n_lanes, self.device, amx_setting())

    def estimate(self, job: Job) -> dict[str, Any]:
        """Nothing is written, so encoded clips go to a folder that is deleted."""
        from tempfile import TemporaryDirectory

        from ..batch.estimate import estimate
        from ..batch.plan import make_plan
        from ..batch.speaker import Speaker
        from ..batch.storage import open_folder
        from ..batch.voices import VoiceBook

        plan = make_plan(job)
        with TemporaryDirectory(prefix="qwen3tts-") as folder, self.load() as tts:
            book = VoiceBook(tts, open_folder(folder), job.table, self.voices)
            return estimate(job, plan, Speaker(tts, job, book))


def _project(machine: _Machine, job: Job, output: str, run: RunOptions, quiet: bool) -> Project:
    from ..batch.project import Project

    if run.restart:
        Project.delete(output)
    with progress(TextColumn("reading the table: {task.completed:.0f} rows"), quiet=quiet) as bar:
        task = bar.add_task("", total=None)
        return Project.start(output, job, machine.fingerprint(), lambda n_rows: bar.update(task, completed=n_rows))


def _work(project: Project, shards: list[int], machine: _Machine, cluster: ClusterOptions, bar: Any) -> None:
    done = project.n_made(shards)
    n_rows = sum(project.plan.shard_size(shard, project.job) for shard in shards)
    task = bar.add_task("rows", total=n_rows, completed=done, hours=0.0, failed=project.n_failed(shards))
    spoken = failed = 0.0

    def report(rows: int, n_failed: int, seconds: float) -> None:
        nonlocal spoken, failed
        spoken, failed = spoken + seconds, failed + n_failed
        bar.update(task, advance=rows, hours=spoken / 3600, failed=int(failed))

    if cluster.ray is not None:
        from ..batch.cluster import work_on_ray

        work_on_ray(
            project, shards, machine.worker(), cluster.ray, saved_voices=machine.voices, n_workers=cluster.workers,
            report=report,
        )  # fmt: skip
    elif not project.done().issuperset(shards):
        from ..batch.speaker import Speaker
        from ..batch.voices import VoiceBook
        from ..batch.work import work

        with machine.load() as tts:
            speaker = Speaker(tts, project.job, VoiceBook(tts, project.folder, project.job.table, machine.voices))
            work(project, speaker, shards, report=lambda row: report(1, int(row["error"] is not None), row["seconds"]))
    project.finish()


def _end(project: Project, shards: list[int], output: str, quiet: bool) -> None:
    n_failed = project.n_failed(shards)
    if not quiet:
        n_rows = sum(project.plan.shard_size(shard, project.job) for shard in shards)
        line = f"{n_rows} rows done, {n_failed} of them failed -> {output}"
        stderr.print(line, soft_wrap=True, markup=False)
    if n_failed:
        stderr.print("warning: some rows failed; --status shows them, --retry-failed makes them again", soft_wrap=True)
        raise typer.Exit(_EXIT_FAILED_ROWS)


def _lanes(text: str) -> int | None:
    """None for "auto". Raises OptionError."""
    if text == "auto":
        return None
    if not text.isdigit() or int(text) < 1:
        raise OptionError(f"--lanes is a number from 1 on, or auto, not {text!r}")
    return int(text)


def _absolute(voice: str | None) -> str | None:
    """A clip on the command line is relative to the current folder, one in a table to the table."""
    return os.path.abspath(voice) if voice is not None and os.path.isfile(voice) else voice
