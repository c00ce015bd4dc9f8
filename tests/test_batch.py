"""`qwen3tts batch`: tables into data sets, killed and gone on with, by several processes, with rows that fail."""

from __future__ import annotations

import csv
import io
import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import test_cli
from batches import ROOT, made, manifest, table_of, write_csv

from qwen3tts_gguf import TTS, OptionError, SpeechOptions, TableError, Voice, VoiceError, VoiceStore
from qwen3tts_gguf.batch import shard as shard_module
from qwen3tts_gguf.batch.estimate import estimate, status
from qwen3tts_gguf.batch.job import Job, row_seed
from qwen3tts_gguf.batch.outputs import COLUMNS, names_of
from qwen3tts_gguf.batch.plan import make_plan, rows_of
from qwen3tts_gguf.batch.project import Project
from qwen3tts_gguf.batch.shard import prepare_retry
from qwen3tts_gguf.batch.speaker import Speaker
from qwen3tts_gguf.batch.storage import open_folder
from qwen3tts_gguf.batch.voices import VoiceBook, voice_names
from qwen3tts_gguf.batch.work import RowFailed, work

run = test_cli.run


@pytest.fixture(scope="module")
def nano() -> Iterator[TTS]:
    with TTS("nano", n_threads=2, n_lanes=4) as tts:
        yield tts


@pytest.fixture
def job(tmp_path: Path) -> Job:
    table = write_csv(tmp_path / "lines.csv", table_of(10, {3: ("...", "f1")}))
    return Job(str(table), text="line", id="key", voice_column="speaker", shard_rows=4)


# -- tables ------------------------------------------------------------------------------------------------------------

RECORDS = [
    {"key": "a", "line": "One, two"},
    {"key": "b", "line": 'Say "three"\nand four'},
    {"key": "ü", "line": ""},
]


def write_table(path: Path) -> Path:
    if path.suffix in (".csv", ".tsv"):
        with path.open("w", newline="", encoding="utf-8-sig") as file:
            writer = csv.DictWriter(file, RECORDS[0], delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(RECORDS)
    elif path.suffix == ".jsonl":
        path.write_text("\n\n".join(json.dumps(record) for record in RECORDS), "utf-8")
    else:
        pytest.importorskip("pyarrow.parquet").write_table(
            pytest.importorskip("pyarrow").Table.from_pylist(RECORDS), path, row_group_size=2
        )
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("shard_rows", [1, 2, 3])
def test_every_shard_of_every_kind_of_table_has_its_rows(suffix: str, shard_rows: int, tmp_path: Path) -> None:
    job = Job(str(write_table(tmp_path / f"t{suffix}")), text="line", id="key", shard_rows=shard_rows)
    plan = make_plan(job)
    rows = [row for shard in range(len(plan.starts)) for row in rows_of(job, plan, shard)]
    assert [(row.id, row.text) for row in rows] == [(record["key"], record["line"]) for record in RECORDS]
    assert [row.index for row in rows] == [0, 1, 2]
    assert len(plan.starts) == -(-3 // shard_rows)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("key,line\na,x\nb,y\na,z\n", "the id 'a' is repeated, in rows 1 and 3"),
        ("key,line\na,x\n ,y\n", "row 2 has no id"),
        ("key,other\na,x\n", "there is no column 'line'.*it has key, other; choose one with `text`"),
        ("key,line\na,x,y\n", "3 fields where the header has 2"),
        ("key,line\n", "there are no rows"),
        ("", "there is no header line"),
        ("key,key\n", "two columns have the same name"),
        ('key,line\na,"x\n', "cannot be read"),
        ('key,line\na,"x" said he\n', "byte 9 cannot be read.*each quote in it twice"),
    ],
)
def test_a_mistake_in_the_table_is_found_before_the_start(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(TableError, match=message):
        make_plan(Job(str(tmp_path / "t.csv"), text="line", id="key"))


def test_a_table_of_another_encoding_or_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("key,line\na,\xe4\n".encode("latin-1"))
    (tmp_path / "t.jsonl").write_text('{"line": "x"}\n[1]\n')
    (tmp_path / "t.parquet").write_text("no")
    (tmp_path / "t.xlsx").write_text("no")
    for name, message in (("csv", "UTF-8"), ("jsonl", "byte 14 is not a JSON object"), ("xlsx", "use .csv")):
        with pytest.raises(TableError, match=message):
            make_plan(Job(str(tmp_path / f"t.{name}"), text="line"))
    pytest.importorskip("pyarrow")
    with pytest.raises(TableError, match="not a parquet file"):
        make_plan(Job(str(tmp_path / "t.parquet"), text="line"))


def test_rows_without_an_id_have_their_number(tmp_path: Path) -> None:
    job = Job(str(write_csv(tmp_path / "t.csv", table_of(3, {}))), text="line", shard_rows=2)
    plan = make_plan(job)
    assert [row.id for shard in (0, 1) for row in rows_of(job, plan, shard)] == ["1", "2", "3"]


def test_memory_does_not_grow_with_the_table_but_for_a_hash_per_row(tmp_path: Path) -> None:
    n = 200_000
    with (tmp_path / "t.csv").open("w") as file:
        file.write("key,line\n")
        file.writelines(f"row-{i},{'word ' * 20}\n" for i in range(n))
    measured = (
        "import resource; from qwen3tts_gguf.batch.plan import make_plan; from qwen3tts_gguf.batch.job import Job; "
        f"before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; make_plan(Job({str(tmp_path / 't.csv')!r}, "
        "text='line', id='key')); print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    grown = int(subprocess.run([sys.executable, "-c", measured], capture_output=True, check=True, cwd=ROOT).stdout)
    assert grown * 1024 < 40 * n < (tmp_path / "t.csv").stat().st_size


# -- names and seeds ---------------------------------------------------------------------------------------------------


def test_a_file_is_named_after_its_id_only_where_that_is_safe(tmp_path: Path) -> None:
    ids = ["good_1-A", "../x", "a.b", "CON", "Same", "same", "ü", "x" * 200]
    names = names_of([shard_module.Row(i, id, "") for i, id in enumerate(ids)])
    assert names[0] == "good_1-A"
    assert all(len(name) == 32 and name.isalnum() for name in names[1:])
    assert len({*names}) == len(ids)


def test_the_seed_of_a_row_depends_on_its_id_and_the_jobs_seed() -> None:
    seeds = {row_seed(seed, id, round) for seed in (0, 1) for id in ("a", "b") for round in (0, 1)}
    assert len(seeds) == 8
    assert row_seed(0, "a") == 690438592


# -- from start to end -------------------------------------------------------------------------------------------------


def test_every_row_is_what_speak_makes_of_it_alone(nano: TTS, job: Job, tmp_path: Path) -> None:
    made(nano, job, tmp_path / "out")
    rows = manifest(tmp_path / "out")
    assert [row["id"] for row in rows] == [f"row-{i}" for i in range(10)]
    assert all([*row] == [*COLUMNS] for row in rows)
    [failed] = [row for row in rows if row["error"]]
    assert failed["id"] == "row-3" and failed["audio"] is None and "TextError" in failed["error"]
    book = VoiceBook(nano, open_folder(str(tmp_path / "out")), job.table, None)
    for row in (rows[0], rows[8]):
        alone = nano.speak(row["text"], book.find(row["voice"]), SpeechOptions(seed=row_seed(0, row["id"])))
        found, rate = soundfile.read(tmp_path / "out" / row["audio"], dtype="float32")
        assert rate == 24_000
        assert np.abs(found - alone).max() < 1e-4
        assert row["seconds"] == len(alone) / 24_000 and row["ended"] and row["attempts"] == 1
    assert not (tmp_path / "out/work").exists()


@pytest.mark.parametrize("container", ["files", "parquet", "webdataset"])
@pytest.mark.parametrize("on_error", ["keep", "drop"])
def test_stopped_after_some_rows_it_makes_only_the_others(
    container: Any, on_error: Any, nano: TTS, job: Job, tmp_path: Path
) -> None:
    if container == "parquet":
        pytest.importorskip("pyarrow")
    job = replace(job, container=container, on_error=on_error)
    whole = [*read_all(made(nano, job, tmp_path / "whole"))]
    seen: list[str] = []

    def stop(row: dict[str, Any]) -> None:
        seen.append(row["id"])
        if len(seen) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made(nano, job, tmp_path / "out", report=stop)
    later: list[str] = []
    project = made(nano, job, tmp_path / "out", report=lambda row: later.append(row["id"]))
    assert not {*seen} & {*later}
    found = [*read_all(project)]
    assert found == whole
    assert len(found) == (10 if on_error == "keep" else 9)


def read_all(project: Project) -> Iterator[tuple[dict[str, Any], bytes | None]]:
    for shard in range(project.n_shards):
        yield from project.output.read(shard)


@pytest.mark.parametrize("container", ["files", "parquet", "webdataset"])
@pytest.mark.parametrize("on_error", ["keep", "drop"])
def test_failed_rows_alone_are_retried_with_other_seeds(
    container: Any, on_error: Any, nano: TTS, job: Job, tmp_path: Path
) -> None:
    if container == "parquet":
        pytest.importorskip("pyarrow")
    clip = tmp_path / "late.flac"
    write_csv(Path(job.table), table_of(10, {3: ("Seven.", "late.flac"), 5: ("...", "f1")}))
    job = replace(job, container=container, on_error=on_error)
    project = made(nano, job, tmp_path / "out")
    assert [row["id"] for row in status(project).failed_rows] == ["row-3", "row-5"]
    before = {record["id"]: audio for record, audio in read_all(project)}
    clip.write_bytes((ROOT / "models/nano/voices/f1.flac").read_bytes())
    assert [prepare_retry(project, shard) for shard in range(project.n_shards)] == [True, True, False]
    again: list[str] = []
    project = made(nano, job, tmp_path / "out", report=lambda row: again.append(row["id"]))
    assert sorted(again) == ["row-3", "row-5"]
    after = {record["id"]: audio for record, audio in read_all(project)}
    assert after["row-3"] is not None
    assert {id: after[id] for id in before if before[id] is not None} == {
        id: audio for id, audio in before.items() if audio is not None
    }
    [mended] = [record for record, _ in read_all(project) if record["id"] == "row-3"]
    assert mended["seed"] == row_seed(0, "row-3", 1) and mended["error"] is None
    assert [row["id"] for row in status(project).failed_rows] == ["row-5"]
    assert len([*(tmp_path / "out/voices").iterdir()]) == 1


def test_a_shard_that_another_process_works_on_is_not_retried(nano: TTS, job: Job, tmp_path: Path) -> None:
    project = made(nano, job, tmp_path / "out")
    lock = project.lock_shard(0)
    assert lock is not None
    with lock:
        assert not prepare_retry(project, 0) and project.is_done(0)
    assert prepare_retry(project, 0) and not project.is_done(0)


def test_a_folder_that_another_process_has_just_begun_is_not_refused(job: Job, tmp_path: Path) -> None:
    (tmp_path / "out/work/unfinished").mkdir(parents=True)
    (tmp_path / "out/voices").mkdir()
    assert Project.start(str(tmp_path / "out"), job, "a model").n_shards == 3


def test_a_job_that_stops_at_a_failed_row_goes_on_as_one_that_keeps_it(nano: TTS, job: Job, tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(RowFailed, match=r"row-3.*nothing to pronounce"):
            made(nano, replace(job, on_error="stop"), tmp_path / "out")
    made(nano, job, tmp_path / "out")
    assert len(manifest(tmp_path / "out")) == 10


def test_a_row_of_several_passages_is_read(nano: TTS, job: Job, tmp_path: Path) -> None:
    write_csv(Path(job.table), table_of(2, {1: ("Seven three nine. " * 25, "f1")}))
    made(nano, job, tmp_path / "out")
    short, long = manifest(tmp_path / "out")
    assert long["error"] is None and long["ended"] and long["attempts"] is None
    assert long["seconds"] > 10 * short["seconds"]


@pytest.mark.parametrize("format", ["flac", "wav", "mp3", "opus"])
def test_every_format_is_one_that_libsndfile_reads(format: str, nano: TTS, job: Job, tmp_path: Path) -> None:
    write_csv(Path(job.table), table_of(1, {}))
    made(nano, replace(job, format=format), tmp_path / "out")
    [row] = manifest(tmp_path / "out")
    samples, rate = soundfile.read(tmp_path / "out" / row["audio"])
    assert row["audio"].endswith(f".{format}") and rate == 24_000
    assert abs(len(samples) / rate - row["seconds"]) < 0.1


def test_another_table_model_or_job_is_refused(nano: TTS, job: Job, tmp_path: Path) -> None:
    made(nano, job, tmp_path / "out")
    for other, model, message in (
        (replace(job, seed=1), "a model", "`seed`"),
        (replace(job, options=SpeechOptions(greedy=True)), "a model", "`greedy`"),
        (job, "another", "the model"),
    ):
        with pytest.raises(OptionError, match=message):
            Project.start(str(tmp_path / "out"), other, model)
    write_csv(Path(job.table), table_of(11, {}))
    with pytest.raises(OptionError, match="the table"):
        Project.start(str(tmp_path / "out"), job, "a model")


def test_restart_deletes_what_is_ours_and_nothing_else(nano: TTS, job: Job, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for container in ("files", "webdataset"):
        made(nano, replace(job, container=container), out)
        (out / "notes.txt").write_text("mine")
        Project.delete(str(out))
        assert [path.name for path in out.iterdir()] == ["notes.txt"]
        with pytest.raises(OptionError, match="holds other files"):
            Project.start(str(out), job, "a model")
        (out / "notes.txt").unlink()


def test_status_and_estimate(nano: TTS, job: Job, tmp_path: Path) -> None:
    project = made(nano, job, tmp_path / "out")
    found = status(project)
    assert (found.rows, found.done, found.failed, found.shards_done) == (10, 10, 1, 3)
    assert sum(found.durations.values()) == 9
    assert found.seconds == pytest.approx(sum(row["seconds"] for row in manifest(tmp_path / "out")))
    assert found.speed is not None and found.speed > 0 and found.seconds_left == 0
    cost = estimate(job, project.plan, Speaker(nano, job, VoiceBook(nano, project.folder, job.table, None)))
    assert cost["rows"] == 10 and cost["sample_rows"] >= 4
    assert found.seconds / 3 < cost["speech_seconds"] < found.seconds * 3


# -- the libraries that read data sets ---------------------------------------------------------------------------------


def test_parquet_opens_as_a_hugging_face_audio_data_set(nano: TTS, job: Job, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    pytest.importorskip("pyarrow")
    made(nano, replace(job, container="parquet"), tmp_path / "out")
    data = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert data.num_rows == 10 and data.features["audio"].sampling_rate == 24_000
    assert isinstance(data.features["audio"], datasets.Audio)
    raw = data.cast_column("audio", datasets.Audio(decode=False))
    assert [row["id"] for row in raw if row["audio"] is None] == ["row-3"]
    assert len(soundfile.read(io.BytesIO(raw[0]["audio"]["bytes"]))[0]) == round(raw[0]["seconds"] * 24_000)


def test_tar_files_open_in_webdataset(nano: TTS, job: Job, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    made(nano, replace(job, container="webdataset"), tmp_path / "out")
    urls = sorted(map(str, (tmp_path / "out").glob("shard-*.tar")))
    rows = [*webdataset.WebDataset(urls, shardshuffle=False).decode()]
    assert [row["json"]["id"] for row in rows] == [f"row-{i}" for i in range(10)]
    assert [row["__key__"] for row in rows if "flac" not in row] == ["row-3"]


def test_an_object_store_holds_the_same_data_set(nano: TTS, job: Job, tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    project = Project.start("memory://batch/out", job, "a model")
    speaker = Speaker(nano, job, VoiceBook(nano, project.folder, job.table, None))
    work(project, speaker, range(project.n_shards))
    project.finish()
    made(nano, job, tmp_path / "out")
    assert project.folder.read("manifest.jsonl") == (tmp_path / "out/manifest.jsonl").read_bytes()
    row = manifest(tmp_path / "out")[0]
    assert project.folder.read(row["audio"]) == (tmp_path / "out" / row["audio"]).read_bytes()
    assert status(Project.open("memory://batch/out")).done == 10
    Project.delete("memory://batch/out")
    assert not project.folder.exists("job.json") and not project.folder.names("audio")


# -- voices ------------------------------------------------------------------------------------------------------------


def test_clips_and_saved_voices_are_put_into_the_folder_once_and_needed_no_more(
    nano: TTS, job: Job, tmp_path: Path
) -> None:
    clip, saved = tmp_path / "clip.flac", VoiceStore(tmp_path / "saved")
    clip.write_bytes((ROOT / "models/nano/voices/m1.flac").read_bytes())
    (tmp_path / "clip.txt").write_text("Seven three nine.", "utf-8")
    saved.save("mine", Voice.from_audio(clip, nano))
    folder = open_folder(str(tmp_path / "out"))
    names = ["clip.flac", "mine", "f1", "none", "other.flac", "nobody"]
    failed = VoiceBook(nano, folder, job.table, saved.folder).prepare(names)
    assert {name: str(error) for name, error in failed.items()} == {
        "other.flac": f"{tmp_path / 'other.flac'}: there is no such clip",
        "nobody": "no voice is named 'nobody'",
    }
    assert len(folder.names("voices")) == 2
    clip.unlink()
    elsewhere = VoiceBook(nano, folder, "/elsewhere/lines.csv", None, pickle.loads(pickle.dumps(failed)))
    cloned, spoken = elsewhere.find("clip.flac"), elsewhere.find("mine")
    assert cloned is not None and cloned.codes is not None and cloned.transcript == "Seven three nine."
    assert spoken is not None and spoken.speaker is not None and spoken.codes is None
    for name in ("other.flac", "nobody"):
        with pytest.raises(VoiceError, match=str(failed[name])):
            elsewhere.find(name)


def test_the_voices_of_some_shards_are_named_once(tmp_path: Path) -> None:
    names = ["a", "", "a", "b.wav", "c", "c"]
    table = write_csv(tmp_path / "t.csv", [{"text": "One.", "speaker": name} for name in names])
    job = Job(str(table), text="text", voice_column="speaker", voice="d", shard_rows=2)
    plan = make_plan(job)
    assert [*voice_names(job, plan, range(3))] == ["a", "d", "b.wav", "c"]
    assert [*voice_names(job, plan, [1])] == ["a", "b.wav"]
    assert [*voice_names(replace(job, voice_column=None), plan, range(3))] == ["d"]
    assert not [*voice_names(replace(job, voice_column=None, voice=None), plan, range(3))]


def test_a_start_and_an_end_list_the_finished_shards_once_each(
    nano: TTS, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = made(nano, replace(job, shard_rows=1), tmp_path / "out")
    asked: list[str] = []
    for name in ("exists", "names"):
        inner = getattr(project.folder, name)
        monkeypatch.setattr(project.folder, name, lambda place, inner=inner: asked.append(place) or inner(place))
    work(project, Speaker(nano, job, VoiceBook(nano, project.folder, job.table, None)), range(project.n_shards))
    assert asked == ["shards"]
    project.finish()
    assert asked == ["shards"] * 3  # once more under the lock


# -- the command -------------------------------------------------------------------------------------------------------


def batch(run: test_cli.Run, table: Path, out: Path, *more: object) -> SimpleNamespace:
    return run("batch", table, "-o", out, "--model", "nano", "--text", "line", "--threads", "1", *more)


def test_the_command_makes_a_data_set_and_its_status(run: test_cli.Run, tmp_path: Path) -> None:
    table, out = write_csv(tmp_path / "t.csv", table_of(3, {})), tmp_path / "out"
    assert batch(run, table, out).code == 0
    assert [row["id"] for row in manifest(out)] == ["1", "2", "3"]
    assert "3 of 3 done" in run("batch", "--status", out).out.decode()
    report = json.loads(run("batch", "--status", out, "--json", "-").out)
    assert report["done"] == 3 and report["failed_rows"] == []
    again = batch(run, table, out)
    assert again.code == 0 and "3 rows done" in again.err
    refused = batch(run, table, out, "--seed", "3")
    assert test_cli.is_one_error_line(refused) and "--seed" in refused.err and "--restart" in refused.err
    assert batch(run, table, out, "--seed", "3", "--restart", "--as", "webdataset").code == 0
    assert not (out / "manifest.jsonl").exists()


def test_the_picture_of_durations(run: test_cli.Run, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    table, out = write_csv(tmp_path / "t.csv", table_of(3, {})), tmp_path / "out"
    batch(run, table, out)
    assert run("batch", "--status", out, "--plot", tmp_path / "p.png").code == 0
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_estimates_without_writing(run: test_cli.Run, tmp_path: Path) -> None:
    table = write_csv(tmp_path / "t.csv", table_of(8, {}))
    result = batch(run, table, tmp_path / "out", "--estimate", "--json", "-")
    assert result.code == 0 and json.loads(result.out)["rows"] == 8
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("batch",), "needs a table"),
        (("batch", "--status", "nowhere"), "there is no batch"),
        (("batch", "none.csv", "-o", "out", "--model", "nano"), "cannot be read"),
        (("batch", "t.csv", "-o", "out", "--model", "nano", "--shards", "4/3"), "--shards is K/N"),
        (("batch", "t.csv", "-o", "out", "--model", "nano", "--lanes", "0"), "--lanes is a number"),
        (("batch", "t.csv", "-o", "out", "--restart", "--shards", "1/2"), "--restart would delete"),
        (("batch", "t.csv", "-o", "out", "--plot", "p.png"), "--plot belongs to --status"),
        (("batch", "t.csv", "-o", "t.csv", "--model", "nano"), "t.csv is a file, not a folder"),
        (("batch", "t.csv", "-o", "out", "--model", "nano", "--text", "x"), "it has text; choose one with --text"),
        (("batch", "t.csv", "-o", "out", "--model", "nano", "--language-column", "x"), "one with --language-column"),
        (("batch", "t.csv", "-o", "out", "--workers", "2"), "--workers belongs to --ray"),
    ],
)
def test_a_wrong_command_is_one_line(
    arguments: tuple[str, ...], message: str, run: test_cli.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "t.csv", [{"text": "Seven."}])
    result = run(*arguments)
    assert test_cli.is_one_error_line(result) and message in result.err


def test_without_ray_its_extra_is_named(run: test_cli.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    result = batch(run, write_csv(tmp_path / "t.csv", table_of(3, {})), tmp_path / "out", "--ray", "auto")
    assert test_cli.is_one_error_line(result) and "pip install 'qwen3tts-gguf[ray]'" in result.err
