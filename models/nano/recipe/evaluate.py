"""How well a converted pair speaks: words, ends, lengths and voices of the held-out sentences.

    python models/nano/recipe/evaluate.py models/nano/*.gguf --json figures.json

Runs on the product itself, with pocketsphinx; needs neither PyTorch nor the corpus.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile
from judge import VoiceJudge
from numpy.typing import NDArray
from recogniser import WordErrors

from qwen3tts_gguf import TTS, SpeechOptions, Voice

NANO = Path(__file__).parents[1]
RATE = TTS.sample_rate_hz


@dataclass(frozen=True)
class Figures:
    """Of one model in one mode; shares are 0 to 1."""

    model: str
    mode: str
    sentences: int
    word_error_rate: float
    ended: float
    """By end of speech, not by the frame budget."""
    seconds: float
    length: float
    """Seconds spoken over espeak-ng's."""
    right_voice: float
    """By the independent judge."""
    nearest_vector: float
    """Its speaker vector is nearest to that of the clip, of ten."""

    def __str__(self) -> str:
        return (
            f"{self.model} {self.mode}: WER {self.word_error_rate:.1%}, ended {self.ended:.1%}, "
            f"length {self.length:.2f}, voice {self.right_voice:.1%} (vector {self.nearest_vector:.1%}) "
            f"of {self.sentences}"
        )


def held_out(n: int | None = None) -> list[dict]:
    return json.loads((NANO / "held_out.json").read_text())[:n]


def clips(tts: TTS) -> dict[str, Voice]:
    """The ten voices, with codes and transcript."""
    return {
        clip.stem: Voice.from_audio(clip, tts, transcript=clip.with_suffix(".txt").read_text())
        for clip in sorted((NANO / "voices").glob("*.flac"))
    }


def nearest(tts: TTS, samples: NDArray[np.float32], voices: dict[str, Voice]) -> str:
    heard = tts.voice_encoder.encode(samples).speaker
    return min(voices, key=lambda name: float(np.linalg.norm(voices[name].speaker - heard)))


def evaluate(tts: TTS, name: str, mode: str, sentences: list[dict], keep: Path | None = None) -> Figures:
    """mode: x-vector or in-context."""
    voices, judge, words = clips(tts), VoiceJudge.load(NANO / "judge.npz"), WordErrors()
    ended = right = near = 0
    made = wanted = 0.0
    for i, sentence in enumerate(sentences):
        voice = voices[sentence["voice"]]
        if mode == "x-vector":
            voice = voice.without_codes()
        with tts.utter(sentence["text"], voice, SpeechOptions(language="english", seed=i)) as utterance:
            samples = np.concatenate([*utterance] or [np.zeros(1, np.float32)])
        ended += utterance.ended
        made += len(samples) / RATE
        wanted += sentence["seconds"]
        heard = words.add(sentence["text"], samples, RATE)
        if len(samples) > RATE // 2:
            right += judge.voice(samples) == sentence["voice"]
            near += nearest(tts, samples, voices) == sentence["voice"]
        if keep:
            soundfile.write(keep / f"{mode}-{i:03}-{sentence['voice']}.flac", samples, RATE)
            print(f"{sentence['voice']}: {sentence['text']} -> {' '.join(heard)}")
    n = len(sentences)
    return Figures(name, mode, n, words.rate, ended / n, made, made / wanted, right / n, near / n)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path, help="talker .gguf files; mmproj files are passed over")
    parser.add_argument("--sentences", type=int, help="the first so many; default: all")
    parser.add_argument("--modes", default="x-vector,in-context")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path, help="a folder for the speech; also prints what was recognised")
    arguments = parser.parse_args()
    figures = []
    for path in (p for p in arguments.models if not p.name.startswith("mmproj-")):
        tts = TTS(path)
        for mode in arguments.modes.split(","):
            figures.append(evaluate(tts, path.stem, mode, held_out(arguments.sentences), arguments.keep))
            print(figures[-1], flush=True)
        del tts
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(f) for f in figures], indent=2) + "\n")


if __name__ == "__main__":
    main()
