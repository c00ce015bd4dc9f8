"""The code predictor with several lanes: each bit-identical to itself alone, whatever lanes are beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from qwen3tts_convert import ConvertedPair
from qwen3tts_gguf.errors import ModelFileError
from qwen3tts_gguf.ggml.device import Backend
from qwen3tts_gguf.model.files import MmprojFile
from qwen3tts_gguf.nets.code_predictor import CodePredictor, Frame
from qwen3tts_gguf.nets.sampling import Sampling

SAMPLINGS = [
    Sampling(),
    Sampling(draws=False),
    Sampling(top_k=5, top_p=0.8, temperature=1.5, repetition_penalty=1.3),
    Sampling(top_k=0, top_p=0.9),
    Sampling(top_k=64, top_p=0.5),
    Sampling(temperature=0.6, repetition_penalty=1.1),
    Sampling(top_k=100, repetition_penalty=1.5),
    Sampling(draws=False, repetition_penalty=2.0),
    Sampling(top_k=1),
]
COMPANIES = [[0, 1], [3, 6], [8, 3, 2], [7, 4, 2, 0], [5, 1, 0, 2, 4, 8, 7, 3, 6]]
TYPES = ("f32", "f16", "bf16", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "q4_0")


class Lanes:
    """Nine lanes with settings, codes and talker outputs of their own."""

    def __init__(self, predictor: CodePredictor) -> None:
        n, width = len(SAMPLINGS), predictor.config.talker_hidden
        self.predictor = predictor
        self.hidden = np.random.default_rng(1).standard_normal((n, width)).astype(np.float32)

    def frames(self, lanes: Sequence[int]) -> list[Frame]:
        requests = [(SAMPLINGS[lane], np.random.default_rng(lane)) for lane in lanes]
        return self.predictor.predict(self.hidden[lanes], np.array(lanes) * 7, requests)


def equal(one: Frame, other: Frame) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in ("codes", "embedding", "logit_sums")
    )


@pytest.fixture
def tiny(pair: Callable[..., ConvertedPair]) -> CodePredictor:
    return CodePredictor(MmprojFile(pair("q8_0").mmproj), Backend(1))


@pytest.mark.parametrize("placements", [(), ("CPU_REPACK",)], ids=["plain", "repacked"])
@pytest.mark.parametrize(
    ("size", "type"),
    [("tiny-blocks", type) for type in TYPES] + [("tiny-0.6b", type) for type in ("f32", "q8_0", "q4_0")],
)  # with a projection and without
def test_a_lane_is_the_same_alone_and_with_others(
    pair: Callable[..., ConvertedPair], size: str, type: str, placements: tuple[str, ...]
) -> None:
    backend = Backend(1, placements)
    lanes = Lanes(CodePredictor(MmprojFile(pair(type, size=size).mmproj), backend))
    alone = [lanes.frames([lane])[0] for lane in range(len(SAMPLINGS))]
    assert len({frame.codes.tobytes() for frame in alone}) == len(alone)
    for n_threads, company in zip((1, 2, 3, 2, 3), COMPANIES, strict=True):
        backend.use_threads(n_threads)
        for lane, frame in zip(company, lanes.frames(company), strict=True):
            assert equal(frame, alone[lane]), (n_threads, company, lane)


def test_a_lane_is_the_same_where_every_product_takes_single_rows(pair: Callable[..., ConvertedPair]) -> None:
    model, backend = MmprojFile(pair("q8_0", size="tiny-blocks").mmproj), Backend(2)
    single, shared = (Lanes(CodePredictor(model, backend, single_rows=single)) for single in (True, False))
    for company in COMPANIES[-2:]:
        assert all(map(equal, single.frames(company), shared.frames(company)))


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e4])
def test_numbers_out_of_range_concern_their_own_lane_alone(tiny: CodePredictor, value: float) -> None:
    lanes = Lanes(tiny)
    alone = lanes.frames([0])[0]
    lanes.hidden[[1, 3]] = value
    unharmed, *others = lanes.frames([0, 1, 3])
    assert equal(unharmed, alone) and unharmed.damage is None
    if value == 1e4:
        assert not any(frame.damage for frame in others)
        return
    for frame in others:
        assert isinstance(frame.damage, ModelFileError) and "computes NaN or infinity" in str(frame.damage)
    assert equal(lanes.frames([0])[0], alone)  # nor does anything stay behind


def test_a_lane_takes_as_many_random_numbers_with_any_others(tiny: CodePredictor) -> None:
    hidden = np.ones((3, tiny.config.talker_hidden), np.float32)
    after = []
    for company in ([0], [0, 2], [0, 3, 1]):
        generators = [np.random.default_rng(9) for _ in company]
        requests = list(zip([SAMPLINGS[i] for i in company], generators, strict=True))
        tiny.predict(hidden[: len(company)], [1] * len(company), requests)
        after.append(generators[0].random())
    assert after[0] == after[1] == after[2]


def test_top_k_of_any_number_shares_one_graph(tiny: CodePredictor) -> None:
    """Graphs cost megabytes each: their number must be bounded whatever requests ask for."""
    hidden = np.ones((1, tiny.config.talker_hidden), np.float32)
    for top_k in range(1, 65):
        tiny.predict(hidden, [1], [(Sampling(top_k=top_k, top_p=top_k / 100), np.random.default_rng(0))])
    assert len(tiny._graphs) == 1
    for top_k in (0, 65, 2000, 5000):
        tiny.predict(hidden, [1], [(Sampling(top_k=top_k), np.random.default_rng(0))])
    assert len(tiny._graphs) == 2


@pytest.mark.parametrize("n_lanes", range(1, 18))
def test_prepare_builds_all_that_so_many_lanes_need(
    pair: Callable[..., ConvertedPair], n_lanes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[tuple[int, int]] = []

    class Recorder:
        def __init__(self, *arguments: Any) -> None:
            built.append(arguments[3:5])
            self.n_lanes = arguments[3]

        def run(self, hidden: NDArray[np.float32], *_: Any) -> tuple[Any, Any, Any]:
            assert len(hidden) <= self.n_lanes
            return hidden, hidden, hidden

    monkeypatch.setattr("qwen3tts_gguf.nets.code_predictor.FrameGraph", Recorder)
    predictor = CodePredictor(MmprojFile(pair("q8_0").mmproj), Backend(1))
    predictor.prepare(n_lanes, Sampling())
    prepared = list(built)
    hidden = np.arange(n_lanes, dtype=np.float32)[:, None]
    requests = [(Sampling(), np.random.default_rng(0))] * n_lanes
    frames = predictor.predict(hidden, [0] * n_lanes, requests)
    assert built == prepared and all(candidates == 64 for _, candidates in built)
    assert [float(frame.embedding[0]) for frame in frames] == list(range(n_lanes))
