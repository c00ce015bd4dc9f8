"""Compare qwen3tts with llama.cpp's own pipeline and with other engines, in turns, so that all meet the same machine:

    python benchmarks/compare.py --ours TALKER.gguf [TALKER.gguf ...] --theirs TALKER.gguf MMPROJ.gguf \\
        --runs 3 --frames 72 --threads 2 --out results.json

A round runs llama.cpp's pipeline, each peer and each of our models once, every one in a process of its own; a ratio
compares two runs of one round. All speak the same sentence for the same number of frames. RTF is seconds of work
(prompt included, loading not) per second of audio, and is measured twice: in the first speech of a process, when much
of the weights is not yet in its memory, and in the next one. llama.cpp's pipeline returns the sound as a whole, and its
codec always computes windows of 72 frames: other counts would not be fair to it.

A peer is a command that takes --frames and --threads and prints the fields of llama_pipeline.py, for example
--peer "vox-environment/bin/python benchmarks/vox_pipeline.py MODEL.tmod REFERENCE.wav".
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shlex
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_THEIR_WINDOW = 72
_TAIL = 20  # lines of a failed run that are shown


def main() -> None:
    arguments = argparse.ArgumentParser(
        description="Compare qwen3tts with llama.cpp's own pipeline.", epilog=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    arguments.add_argument("--ours", type=Path, nargs="+", required=True, metavar="TALKER", help="mmproj next to it")
    arguments.add_argument("--theirs", type=Path, nargs=2, required=True, metavar=("TALKER", "MMPROJ"))
    arguments.add_argument("--runs", type=int, default=3, help="rounds (3)")
    arguments.add_argument("--frames", type=int, default=_THEIR_WINDOW, help="of 80 ms (72)")
    arguments.add_argument("--threads", type=int, default=2, help="(2)")
    arguments.add_argument(
        "--their-plain-buffers", action="store_true", help="keep their talker out of AMX and other extra buffers"
    )
    arguments.add_argument("--peer", action="append", default=[], metavar="COMMAND", help="another engine; repeatable")
    arguments.add_argument("--out", type=Path, metavar="FILE.json")
    wanted = arguments.parse_args()
    if wanted.runs < 1 or wanted.frames < 2 or wanted.threads < 1:
        arguments.error("--runs and --threads start at 1, --frames at 2")
    files = [*wanted.ours, *wanted.theirs]
    if missing := [str(file) for file in files if not file.is_file()]:
        arguments.error(f"no such file: {', '.join(missing)}")
    if wanted.out and not wanted.out.resolve().parent.is_dir():
        arguments.error(f"no folder for {wanted.out}")

    same_work = ["--frames", str(wanted.frames), "--threads", str(wanted.threads)]
    their_command = [sys.executable, str(ROOT / "benchmarks" / "llama_pipeline.py"), *map(_absolute, wanted.theirs)]
    their_command += same_work
    if wanted.their_plain_buffers:
        their_command.append("--plain-buffers")
    peer_commands = [[*shlex.split(peer), *same_work] for peer in wanted.peer]
    our_commands = [
        [sys.executable, str(ROOT / "benchmarks" / "our_pipeline.py"), _absolute(talker), *same_work]
        for talker in wanted.ours
    ]
    their_runs: list[dict[str, Any]] = []
    peer_runs: list[list[dict[str, Any]]] = [[] for _ in peer_commands]
    our_runs: list[list[dict[str, Any]]] = [[] for _ in our_commands]
    for i in range(wanted.runs):
        their_runs.append(_report_of(their_command))
        _print_run(i, wanted.theirs[0].name, their_runs[-1])
        for command, runs in zip(peer_commands, peer_runs, strict=True):
            runs.append(_report_of(command))
            _print_run(i, _model_of(command), runs[-1])
        for talker, command, runs in zip(wanted.ours, our_commands, our_runs, strict=True):
            runs.append(_report_of(command))
            _print_run(i, talker.name, runs[-1])

    result = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": our_runs[0][0]["machine"],
        "versions": our_runs[0][0]["versions"],
        "frames": wanted.frames,
        "threads": wanted.threads,
        "theirs": {
            "files": [file.name for file in wanted.theirs],
            "command": _without_folders(their_command),
            **_summary(their_runs),
            "runs": their_runs,
        },
        "peers": [
            {
                "command": _without_folders(command),
                "model": _model_of(command),
                **_summary(runs),
                "ratio": _ratio(their_runs, runs, "rtf"),
                "first_ratio": _ratio(their_runs, runs, "first_rtf"),
                "runs": runs,
            }
            for command, runs in zip(peer_commands, peer_runs, strict=True)
        ],
        "ours": [
            {
                "files": [talker.name, f"mmproj-{talker.name}"],
                "command": _without_folders(command),
                **_summary(runs),
                "ratio": _ratio(their_runs, runs, "rtf"),
                "first_ratio": _ratio(their_runs, runs, "first_rtf"),
                "runs": runs,
            }
            for talker, command, runs in zip(wanted.ours, our_commands, our_runs, strict=True)
        ],
    }
    _print_result(result)
    if wanted.out:
        wanted.out.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


def _model_of(command: list[str]) -> str:
    """The name of a peer's model: the first argument after its program that is a file and no program."""
    files = (Path(argument) for argument in command[1:])
    return next((file.name for file in files if file.is_file() and file.suffix != ".py"), command[0])


def _absolute(file: Path) -> str:
    return str(file.resolve())


def _without_folders(command: list[str]) -> str:
    return shlex.join(Path(argument).name if os.sep in argument else argument for argument in command)


def _report_of(command: list[str]) -> dict[str, Any]:
    """Run it and read the JSON on its stdout."""
    packages = [str(ROOT), str(ROOT / "convert"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, packages))}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        last = "\n".join(done.stderr.splitlines()[-_TAIL:])
        sys.exit(f"{last}\nfailed with {done.returncode}: {shlex.join(command)}")
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def _commit() -> str:
    """Of this tree; with a + when files differ from it."""
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    changes = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=False).stdout
    return (head or "not a git tree") + ("+" if changes.strip() else "")


def _range(values: list[float]) -> dict[str, float]:
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def _summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    return {what: _range([run[what] for run in runs]) for what in ("first_rtf", "rtf", "load_seconds", "peak_rss_gb")}


def _ratio(theirs: list[dict[str, Any]], ours: list[dict[str, Any]], what: str) -> dict[str, float]:
    return _range([their[what] / our[what] for their, our in zip(theirs, ours, strict=True)])


def _print_run(i: int, model: str, run: dict[str, Any]) -> None:
    print(
        f"round {i + 1}: {run['runtime']:8} {model}: RTF {run['first_rtf']:.3f}, then {run['rtf']:.3f}, "
        f"load {run['load_seconds']:.2f} s, peak {run['peak_rss_gb']:.2f} GB",
        flush=True,
    )


def _print_result(result: dict[str, Any]) -> None:
    machine, theirs = result["machine"], result["theirs"]
    print(
        f"\n{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']:.1f} GB; {result['threads']} threads, "
        f"{result['frames']} frames"
    )
    print(f"min / median / max of {len(theirs['runs'])} rounds; commit {result['commit']}\n")
    names = ["libmtmd " + theirs["files"][0]]
    names += [f"{peer['runs'][0]['runtime']} {peer['model']}" for peer in result["peers"]]
    names += ["qwen3tts " + ours["files"][0] for ours in result["ours"]]
    width = max(map(len, names))
    head = (f"{what:^18}" for what in ("RTF, first", "times faster", "RTF, then", "times faster"))
    print(f"{'':{width}}  {'  '.join(head)}  peak GB")
    for name, row in zip(names, [theirs, *result["peers"], *result["ours"]], strict=True):
        values = (row.get(what) for what in ("first_rtf", "first_ratio", "rtf", "ratio"))
        cells = (f"{_shown(value) if value else '':^18}" for value in values)
        print(f"{name:{width}}  {'  '.join(cells)}  {row['peak_rss_gb']['max']:.2f}")


def _shown(values: dict[str, float]) -> str:
    return " / ".join(f"{values[what]:.2f}" for what in ("min", "median", "max"))


if __name__ == "__main__":
    main()
