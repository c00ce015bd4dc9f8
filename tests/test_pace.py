"""Whether text arrives as fast as it is spoken, on a clock of the test's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from qwen3tts_gguf.speech.pace import keeps_up

WORDS = [f"word{n} " for n in range(12)]


class Writer:
    """Gives each piece after so many seconds of a clock that it moves itself."""

    def __init__(self, pieces: list[str], seconds: float) -> None:
        self.pieces, self.seconds, self.now, self.n_given = pieces, seconds, 100.0, 0

    def __iter__(self) -> Iterator[str]:
        for piece in self.pieces:
            self.now += self.seconds
            self.n_given += 1
            yield piece

    def judged(self) -> tuple[bool, Iterator[str]]:
        return keeps_up(self, lambda text: len(text.split()), lambda: self.now)


@pytest.mark.parametrize(("per_second", "expected"), [(3, False), (10, False), (15, True), (100, True)])
def test_the_first_tokens_decide(per_second: float, expected: bool) -> None:
    writer = Writer(WORDS, 1 / per_second)
    keeps_up, pieces = writer.judged()
    assert keeps_up is expected and writer.n_given == 8
    assert "".join(pieces) == "".join(WORDS)


def test_a_late_first_word_says_nothing_about_the_pace() -> None:
    writer = Writer(WORDS, 1 / 50)
    writer.now += 60.0
    assert writer.judged()[0]


def test_what_arrives_in_bursts_is_judged_by_its_tokens() -> None:
    bursts = ["".join(WORDS[n : n + 4]) for n in (0, 4, 8)]
    assert Writer(bursts, 0.3).judged()[0]
    assert not Writer(bursts, 0.4).judged()[0]


@pytest.mark.parametrize("pieces", [[], WORDS[:3], ["".join(WORDS)]])
def test_a_text_that_is_all_there_keeps_up(pieces: list[str]) -> None:
    verdict, again = Writer(pieces, 5.0).judged()
    assert verdict and "".join(again) == "".join(pieces)
