"""What a CPU is, read from what the system says about it."""

from __future__ import annotations

from pathlib import Path

import pytest

from qwen3tts_gguf.ggml.device import extra_buffer_types
from qwen3tts_gguf.ggml.machine import read_cpuinfo, this_machine

XEON = """\
processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R) Platinum 8488C
flags\t\t: fpu avx2 avx512f amx_int8

processor\t: 1
vendor_id\t: GenuineIntel
model name\t: another
flags\t\t: fpu
"""
GRAVITON = """\
processor\t: 0
BogoMIPS\t: 2100.00
Features\t: fp asimd asimddp sve i8mm
CPU implementer\t: 0x41
CPU part\t: 0xd40
"""


def cpuinfo(folder: Path, text: str) -> tuple[str, str, frozenset[str]]:
    (folder / "cpuinfo").write_text(text)
    return read_cpuinfo(folder / "cpuinfo")


def test_an_x86_cpu_has_the_name_and_features_of_its_first_processor(tmp_path: Path) -> None:
    name, vendor, features = cpuinfo(tmp_path, XEON)
    assert (name, vendor) == ("Intel(R) Xeon(R) Platinum 8488C", "intel")
    assert features == {"fpu", "avx2", "avx512f", "amx_int8"}


def test_an_arm_cpu_without_a_name_is_identified_by_its_part(tmp_path: Path) -> None:
    name, vendor, features = cpuinfo(tmp_path, GRAVITON)
    assert vendor == "arm" and "0xd40" in name and "i8mm" in features


@pytest.mark.parametrize(("line", "vendor"), [("vendor_id: AuthenticAMD", "amd"), ("vendor_id: Unheard Of", "")])
def test_vendors(tmp_path: Path, line: str, vendor: str) -> None:
    assert cpuinfo(tmp_path, line)[1] == vendor


def test_a_system_without_cpuinfo_has_a_cpu_all_the_same(tmp_path: Path) -> None:
    name, vendor, features = read_cpuinfo(tmp_path / "absent")
    assert name and vendor == "" and not features


def test_this_machine_lists_what_this_build_of_ggml_uses_and_offers() -> None:
    machine = this_machine()
    assert machine.name and machine.build
    assert machine.buffer_types == tuple(extra_buffer_types())
