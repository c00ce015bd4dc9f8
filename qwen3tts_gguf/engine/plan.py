"""The plan: which buffers, layouts and threads this machine computes with.

    plan = Plan.for_this_machine(n_threads=None)
    plan.row                "amx"
    plan.talker             TalkerBuffers.EXTRA
    plan.predictor          ("AMX", "CPU_REPACK")

A plan is a row of the table below, chosen by what the CPU and this build of ggml offer and by what survived its trial
(ggml/trial.py). Layouts round differently, so nothing is timed to choose one: the same machine and build always get the
same plan, and the same seed gives the same speech again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..errors import Note, OptionError
from ..ggml.devices import Device
from ..ggml.machine import Machine, this_machine
from ..ggml.trial import Verdict, try_buffer_types
from ..nets.codec_layout import F16, F32, Q8_0, STORED, CodecLayout
from ..nets.talker import TalkerBuffers
from .threads import Shares, default_threads, shares

__all__ = ["AMX_SETTINGS", "CODEC_TYPES", "Plan", "forced_verdicts"]

_AMX, _REPACK = "AMX", "CPU_REPACK"
AMX_SETTINGS = ("auto", "on", "rows", "off")


@dataclass(frozen=True)
class Plan:
    """What is computed where. `for_this_machine` chooses one, `with_overrides` changes entries of it."""

    row: str
    """The row of the table: "amx", "amx-rows", "avx512-amd", "avx512-intel", "avx2", "arm" or "other"."""
    threads: Shares
    talker: TalkerBuffers
    predictor: tuple[str, ...]
    """Extra buffer types in which the code predictor's matrices may lie, the preferred one first."""
    single_rows: bool
    """Whether the code predictor multiplies one row at a time, because its buffers survive nothing else."""
    codec: CodecLayout
    """How the codec computes its products."""
    codec_placements: tuple[str, ...]
    """Extra buffer types for those of the codec's matrices that are to lie in one."""
    frames_at_once: int
    """Frames that the codec decodes together where a whole speech is wanted."""
    lanes_worth_it: int
    """The most lanes in one step that make each of them cheaper."""
    verdicts: Mapping[str, Verdict]
    """What each extra buffer type survives here."""
    amx_lost: bool = False
    """Whether the CPU has AMX, and this build of ggml cannot use it, or only for single rows."""
    notes: tuple[Note, ...] = ()
    """What could not be found out about this machine."""

    @classmethod
    def for_this_machine(cls, n_threads: int | None = None, *, amx: str = "auto", overrides: str = "") -> Plan:
        """The plan for the machine that this process runs on.

        Args:
            n_threads: by default all that this process may use.
            amx: "auto" tries AMX in a child process before it is used; "on" and "rows" use it untried, for any number
                of rows or for single ones; "off" keeps it out.
            overrides: entries to change, for measuring: see `with_overrides`.
        Raises:
            OptionError: a value of `amx` or an override that does not exist, or cannot be computed here.
        """
        machine = this_machine()
        trials = try_buffer_types(machine, forced_verdicts(amx))
        plan = cls.for_machine(machine, trials.verdicts, default_threads() if n_threads is None else n_threads)
        lost = amx == "auto" and plan.amx_lost
        return replace(plan, amx_lost=lost, notes=trials.notes).with_overrides(overrides)

    @classmethod
    def for_machine(cls, machine: Machine, verdicts: Mapping[str, Verdict], n_threads: int) -> Plan:
        """The plan for any machine, given what its extra buffer types survive. The same for the same arguments."""
        if n_threads < 1:
            raise OptionError(f"n_threads must be at least 1, not {n_threads}")
        name = _row(machine, verdicts)
        row = _TABLE[name]
        works = [buffers for buffers, verdict in verdicts.items() if verdict is Verdict.WORKS]
        single_rows = _AMX in row.predictor and verdicts.get(_AMX) is Verdict.ROWS
        return cls(
            row=name,
            threads=shares(n_threads),
            talker=row.talker if _survives(row.talker, verdicts) else TalkerBuffers.PLAIN,
            predictor=tuple(each for each in row.predictor if each in works or (each == _AMX and single_rows)),
            single_rows=single_rows,
            codec=row.codec,
            codec_placements=(),
            frames_at_once=row.frames_at_once,
            lanes_worth_it=row.lanes_worth_it,
            verdicts=verdicts,
            amx_lost="amx_int8" in machine.features and verdicts.get(_AMX) is not Verdict.WORKS,
        )

    def with_overrides(self, text: str) -> Plan:
        """This plan with some entries changed: "talker=plain,predictor=repack". For measuring.

        Raises OptionError for an entry or a value that does not exist, and for buffers that would crash here.
        """
        plan = self
        for item in filter(None, (item.strip() for item in text.split(","))):
            name, equals, value = (part.strip() for part in item.partition("="))
            if not equals or name not in _OVERRIDES:
                raise OptionError(f"the plan has no entry '{item}'", hint=f"the entries are: {_entries()}")
            try:
                plan = replace(plan, **_OVERRIDES[name].read(plan, value))
            except (KeyError, ValueError):
                values = _OVERRIDES[name].values
                raise OptionError(
                    f"'{value}' is not a value of the plan's entry {name}", hint=f"possible values: {values}"
                ) from None
        return plan

    def codec_on(self, device: Device) -> CodecLayout:
        """How the codec computes its products on a device."""
        return self.codec if device.is_cpu else STORED

    def entries(self) -> dict[str, str]:
        """The plan in words, entry by entry."""
        in_parallel = f"talker and predictor {self.threads.language}, codec {self.threads.codec}"
        predictor = ", else ".join(self.predictor) or "plain"
        return {
            "row": self.row,
            "buffers": ", ".join(f"{name} {_IN_WORDS[verdict]}" for name, verdict in self.verdicts.items()) or "none",
            "talker": self.talker.value,
            "predictor": f"{predictor}, single rows" if self.single_rows else predictor,
            "codec": f"{_name(self.codec)}, {self.frames_at_once} frames at once",
            "threads": in_parallel if self.threads.side_by_side else f"{self.threads.all}, in turn",
            "lanes": f"up to {self.lanes_worth_it}",
        }


def forced_verdicts(amx: str) -> dict[str, Verdict]:
    """What the setting `amx` says about AMX; nothing for "auto". Raises OptionError."""
    verdicts = {"auto": {}, "on": {_AMX: Verdict.WORKS}, "rows": {_AMX: Verdict.ROWS}, "off": {_AMX: Verdict.OFF}}
    if amx not in verdicts:
        raise OptionError(f"amx is one of {', '.join(AMX_SETTINGS)}, not {amx!r}")
    return verdicts[amx]


# -- the table -------------------------------------------------------------------------------------------------------


CODEC_TYPES = {"f16": F16, "f32": F32, "q8_0": Q8_0}


def _name(codec: CodecLayout) -> str:
    return next(name for name, layout in CODEC_TYPES.items() if layout is codec)


@dataclass(frozen=True)
class _Row:
    talker: TalkerBuffers
    predictor: tuple[str, ...]
    codec: CodecLayout = F16  # Zen 4: F16 products 68 to 94 G/s, F32 24 to 44; nets/codec_layout.py has the Xeon's
    frames_at_once: int = 4  # up to the first block: 13.0 -> 9.1 ms per frame on Zen 4
    lanes_worth_it: int = 4


_IN_WORDS = {Verdict.WORKS: "works", Verdict.ROWS: "works for single rows only", Verdict.OFF: "is not used"}

# Figures: ms per frame at the 0.6B geometry, one lane, 2 threads, unless said otherwise. "Xeon" is an Intel Xeon with
# AMX, 2 cores; "Zen 4" an AMD EPYC, 2 cores.
_TABLE = {
    "amx": _Row(
        # Xeon, talker in AMX / repacked / plain: q4_0 10 / 30 / 29, q8_0 19 / - / 35. Four lanes: q4_0 24 / 30 / 43.
        TalkerBuffers.EXTRA,
        # Xeon, predictor in AMX / as in "avx512-intel": q4_0 17.8 / 27.4, q8_0 31 / 59, q4_k_m 23 / 28.
        (_AMX, _REPACK),
        # Xeon, codec, one thread, four frames at once, F32 / F16: 45.5 / 49.2.
        F32,
    ),
    "amx-rows": _Row(
        # A prompt is many rows, so no AMX. Xeon, repacked / plain: q4_0 one lane 30 / 29, four 30 / 43.
        TalkerBuffers.REPACK,
        # Always one row in each lane. Xeon: as in "amx", but for the first pass of two rows, taken singly.
        (_AMX, _REPACK),
        F32,
    ),
    "avx512-amd": _Row(
        # Zen 4, talker repacked: q4_0 11.2, q8_0 (never repacked) 19.5.
        TalkerBuffers.REPACK,
        # Zen 4, one pass of the predictor repacked / plain: q4_0 1.2 / 2.3, q4_k 1.1 / 1.7.
        (_REPACK,),
    ),
    "avx512-intel": _Row(
        # Xeon with AMX kept out, repacked / plain: q4_0 one thread 45 / 56, two 30 / 29; four lanes 30 / 43.
        TalkerBuffers.REPACK,
        # Xeon: q4_0 repacked 27.4.
        (_REPACK,),
        F32,
    ),
    # Not measured on a CPU of its own: as where it was.
    "avx2": _Row(TalkerBuffers.REPACK, (_REPACK,)),
    # Never run. ggml's repacked kernels for Arm are those of its authors' own figures; KleidiAI's are unknown to us.
    "arm": _Row(TalkerBuffers.REPACK, (_REPACK,)),
    # The layout that any build has.
    "other": _Row(TalkerBuffers.PLAIN, ()),
}


def _row(machine: Machine, verdicts: Mapping[str, Verdict]) -> str:
    amx = verdicts.get(_AMX, Verdict.OFF)
    if amx is not Verdict.OFF:
        return "amx" if amx is Verdict.WORKS else "amx-rows"
    if "AVX512" in machine.build:
        return "avx512-amd" if machine.vendor == "amd" else "avx512-intel"
    if "AVX2" in machine.build:
        return "avx2"
    return "arm" if "NEON" in machine.build else "other"


def _survives(buffers: TalkerBuffers, verdicts: Mapping[str, Verdict]) -> bool:
    """Whether a talker's prompts and lanes, which are products of several rows, can be computed there."""
    needed = {TalkerBuffers.PLAIN: [], TalkerBuffers.REPACK: [_REPACK], TalkerBuffers.EXTRA: list(verdicts)}[buffers]
    return all(verdicts.get(name) is Verdict.WORKS for name in needed)


# -- overrides -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Override:
    values: str
    read: Callable[[Plan, str], dict[str, Any]]
    """A value -> the fields of the plan that it changes. Raises KeyError, ValueError; OptionError."""


def _talker(plan: Plan, value: str) -> dict[str, Any]:
    buffers = TalkerBuffers(value)
    if not _survives(buffers, plan.verdicts):
        raise OptionError(f"the talker cannot use the buffers '{value}': they do not all work on this machine")
    return {"talker": buffers}


def _predictor(plan: Plan, value: str) -> dict[str, Any]:
    wanted = {"plain": (), "repack": (_REPACK,), "amx": (_AMX, _REPACK), "amx-rows": (_AMX, _REPACK)}[value]
    enough = (Verdict.WORKS, Verdict.ROWS) if value == "amx-rows" else (Verdict.WORKS,)
    if wanted and plan.verdicts.get(wanted[0]) not in enough:
        raise OptionError(f"the predictor cannot use the buffers '{value}': they do not work on this machine")
    return {"predictor": wanted, "single_rows": value == "amx-rows"}


def _codec(plan: Plan, value: str) -> dict[str, Any]:
    works = plan.verdicts.get(_AMX) is Verdict.WORKS
    return {"codec": CODEC_TYPES[value], "codec_placements": (_AMX,) if value == "q8_0" and works else ()}


def _count(field: str) -> Callable[[Plan, str], dict[str, Any]]:
    return lambda _, value: {field: _at_least_1(value)}


def _threads(_: Plan, value: str) -> dict[str, Any]:
    if "+" not in value:
        return {"threads": shares(_at_least_1(value))}
    language, codec = map(_at_least_1, value.split("+"))
    return {"threads": Shares(language + codec, language, codec)}


def _at_least_1(value: str) -> int:
    if int(value) < 1:
        raise ValueError
    return int(value)


_OVERRIDES = {
    "talker": _Override("plain, repack or extra", _talker),
    "predictor": _Override("plain, repack, amx or amx-rows", _predictor),
    "codec": _Override("f16, f32 or q8_0", _codec),
    "threads": _Override("a number, or two as in 3+1: talker and predictor, and the codec in parallel", _threads),
    "frames": _Override("a number of frames that the codec decodes at once", _count("frames_at_once")),
    "lanes": _Override("a number", _count("lanes_worth_it")),
}


def _entries() -> str:
    return "; ".join(f"{name}: {override.values}" for name, override in _OVERRIDES.items())
