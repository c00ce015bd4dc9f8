"""The plan of each kind of machine, chosen for CPUs that need not be here."""

from __future__ import annotations

import pytest

from qwen3tts_gguf import OptionError
from qwen3tts_gguf.engine.plan import Plan, forced_verdicts
from qwen3tts_gguf.ggml.machine import Machine
from qwen3tts_gguf.ggml.trial import Verdict
from qwen3tts_gguf.nets.talker import TalkerBuffers

WORKS, ROWS, OFF = Verdict.WORKS, Verdict.ROWS, Verdict.OFF
AVX2, AVX512 = {"AVX2", "FMA", "REPACK"}, {"AVX2", "FMA", "AVX512", "REPACK"}
REPACK = {"CPU_REPACK": WORKS}


def machine(vendor: str, build: set[str], *buffer_types: str) -> Machine:
    return Machine("A CPU", vendor, frozenset(), frozenset(build), buffer_types)


def plan(vendor: str, build: set[str], verdicts: dict[str, Verdict], n_threads: int = 2) -> Plan:
    return Plan.for_machine(machine(vendor, build, *verdicts), verdicts, n_threads)


@pytest.mark.parametrize(
    ("vendor", "build", "verdicts", "row", "talker", "predictor", "single_rows"),
    [
        ("intel", AVX512, {"AMX": WORKS} | REPACK, "amx", "extra", ("AMX", "CPU_REPACK"), False),
        ("intel", AVX512, {"AMX": ROWS} | REPACK, "amx-rows", "repack", ("AMX", "CPU_REPACK"), True),
        ("intel", AVX512, {"AMX": OFF} | REPACK, "avx512-intel", "repack", ("CPU_REPACK",), False),
        ("intel", AVX512, REPACK, "avx512-intel", "repack", ("CPU_REPACK",), False),
        ("amd", AVX512, REPACK, "avx512-amd", "repack", ("CPU_REPACK",), False),
        ("amd", AVX2, REPACK, "avx2", "repack", ("CPU_REPACK",), False),
        ("intel", AVX2, REPACK, "avx2", "repack", ("CPU_REPACK",), False),
        ("arm", {"NEON", "DOTPROD"}, REPACK, "arm", "repack", ("CPU_REPACK",), False),
        ("apple", {"NEON"}, {"CPU_KLEIDIAI": WORKS} | REPACK, "arm", "repack", ("CPU_REPACK",), False),
        ("", {"SSE3"}, REPACK, "other", "plain", (), False),
        ("", set(), {}, "other", "plain", (), False),
    ],
)
def test_each_kind_of_machine_has_its_row(
    vendor: str,
    build: set[str],
    verdicts: dict[str, Verdict],
    row: str,
    talker: str,
    predictor: tuple[str, ...],
    single_rows: bool,
) -> None:
    found = plan(vendor, build, verdicts)
    assert (found.row, found.talker.value, found.predictor, found.single_rows) == (row, talker, predictor, single_rows)
    assert found == plan(vendor, build, verdicts)


@pytest.mark.parametrize("verdict", [ROWS, OFF])
@pytest.mark.parametrize("amx", [WORKS, ROWS, OFF])
def test_buffers_that_do_not_survive_are_in_no_plan(amx: Verdict, verdict: Verdict) -> None:
    found = plan("intel", AVX512, {"AMX": amx, "CPU_REPACK": verdict})
    assert found.talker is TalkerBuffers.PLAIN
    assert found.predictor == (("AMX",) if amx is not OFF else ())


def test_a_build_without_repacking_does_without() -> None:
    found = plan("amd", AVX512, {})
    assert found.talker is TalkerBuffers.PLAIN and found.predictor == ()


@pytest.mark.parametrize("n_threads", [1, 2, 7])
def test_the_threads_are_shared_by_all_nets(n_threads: int) -> None:
    assert plan("amd", AVX512, REPACK, n_threads).threads.all == n_threads


def test_no_threads_are_an_error() -> None:
    with pytest.raises(OptionError, match="n_threads must be at least 1"):
        plan("amd", AVX512, REPACK, 0)


@pytest.mark.parametrize(
    ("features", "verdicts", "lost"),
    [
        ({"avx2", "amx_int8"}, {"AMX": WORKS} | REPACK, False),
        ({"avx2", "amx_int8"}, {"AMX": ROWS} | REPACK, True),
        ({"avx2", "amx_int8"}, {"AMX": OFF} | REPACK, True),
        ({"avx2", "amx_int8"}, REPACK, True),  # a build that was not compiled for it
        ({"avx2"}, REPACK, False),
    ],
)
def test_amx_is_lost_where_the_cpu_has_it_and_the_build_cannot_use_it(
    features: set[str], verdicts: dict[str, Verdict], lost: bool
) -> None:
    there = Machine("A CPU", "intel", frozenset(features), frozenset(AVX2), tuple(verdicts))
    assert Plan.for_machine(there, verdicts, 2).amx_lost == lost


# -- amx=... -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "verdicts"), [("auto", {}), ("on", {"AMX": WORKS}), ("rows", {"AMX": ROWS}), ("off", {"AMX": OFF})]
)
def test_the_setting_amx_forces_a_verdict(setting: str, verdicts: dict[str, Verdict]) -> None:
    assert forced_verdicts(setting) == verdicts


@pytest.mark.parametrize("setting", ["", "yes", "ON"])
def test_another_setting_of_amx_is_an_error_that_names_the_four(setting: str) -> None:
    with pytest.raises(OptionError, match="auto, on, rows, off"):
        forced_verdicts(setting)


def test_amx_kept_out_is_in_no_plan_of_this_machine() -> None:
    found = Plan.for_this_machine(2, amx="off")
    assert "AMX" not in found.predictor and found.talker is not TalkerBuffers.EXTRA
    assert not found.amx_lost  # a user who turns it off needs no advice


# -- overrides ---------------------------------------------------------------------------------------------------------


def test_entries_are_overridden_one_by_one() -> None:
    before = plan("intel", AVX512, {"AMX": WORKS} | REPACK)
    after = before.with_overrides("talker=plain, predictor=amx-rows,codec=q8_0,frames=1,threads=3+1,lanes=8")
    assert after.talker is TalkerBuffers.PLAIN
    assert after.predictor == ("AMX", "CPU_REPACK") and after.single_rows
    assert (after.frames_at_once, after.lanes_worth_it) == (1, 8)
    assert after.codec != before.codec and after.entries()["codec"].startswith("q8_0")
    assert (after.threads.all, after.threads.language, after.threads.codec) == (4, 3, 1)
    assert before.with_overrides("") == before and before.with_overrides("predictor=plain").predictor == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("talcer=plain", "the plan has no entry 'talcer=plain': the entries are: talker: plain"),
        ("talker", "the plan has no entry 'talker'"),
        ("talker=fast", "'fast' is not a value of the plan's entry talker: possible values: plain, repack or extra"),
        ("predictor=", "'' is not a value of the plan's entry predictor"),
        ("codec=f64", "'f64' is not a value of the plan's entry codec: possible values: f16, f32 or q8_0"),
        ("frames=0", "'0' is not a value of the plan's entry frames"),
        ("frames=many", "'many' is not a value"),
        ("threads=1+2+3", "is not a value of the plan's entry threads"),
    ],
)
def test_an_override_that_does_not_exist_is_an_error_that_names_those_that_do(text: str, message: str) -> None:
    with pytest.raises(OptionError) as error:
        plan("intel", AVX512, REPACK).with_overrides(text)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("verdicts", "text"),
    [
        ({"AMX": ROWS} | REPACK, "talker=extra"),
        ({"AMX": ROWS} | REPACK, "predictor=amx"),
        ({"AMX": OFF} | REPACK, "predictor=amx-rows"),
        (REPACK, "predictor=amx"),
        ({"CPU_REPACK": OFF}, "talker=repack"),
        ({"CPU_REPACK": OFF}, "predictor=repack"),
    ],
)
def test_what_would_crash_cannot_be_chosen(verdicts: dict[str, Verdict], text: str) -> None:
    with pytest.raises(OptionError, match="work on this machine"):
        plan("intel", AVX512, verdicts).with_overrides(text)


def test_a_plan_in_words_fits_a_terminal() -> None:
    entries = plan("intel", AVX512, {"AMX": ROWS} | REPACK, 128).entries()
    assert max(len(value) for value in entries.values()) <= 60
