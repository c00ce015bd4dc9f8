"""Writes what ships with the two GGUF files: reference clips, held-out sentences, the judge of voices.

voices/NAME.flac, NAME.txt   one clip a voice, of the corpus' own speech
voices/voices.json           the table of them, which makes them the model's shipped voices; the first is its default
held_out.json                sentences outside the training, each with a voice and how long espeak-ng takes for it
judge.npz                    see judge.py
words.txt                    all words it is trained on
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import soundfile
from codec import Corpus
from domain import WORDS
from judge import VoiceJudge
from settings import DEFAULT_VOICE, FRAME, RATE, SEED, VOICES

NANO = Path(__file__).parents[1]
_CLIP_SECONDS = (2.6, 3.6)
_BEGINNINGS = ("The weather", "It is", "Today is", "There are", "Good", "Your code", "Hello", "Thank you")
_JUDGED = 80  # utterances a voice


def _makes_a_clip(item: dict) -> bool:
    """A sentence written as one, of about three seconds."""
    text, seconds = item["text"], item["samples"] / RATE
    return (
        text.startswith(_BEGINNINGS) and text.endswith((".", "?")) and _CLIP_SECONDS[0] <= seconds <= _CLIP_SECONDS[1]
    )


def main() -> None:
    corpus, rng = Corpus(), random.Random(SEED)
    folder = NANO / "voices"
    folder.mkdir(exist_ok=True)

    of_voice = {v: [i for i in corpus.train if i["voice"] == v] for v in VOICES}
    table = []
    for voice, items in of_voice.items():
        clip = rng.choice([i for i in items if _makes_a_clip(i)])
        wave = corpus.wave[clip["first"] : clip["first"] + clip["samples"]]  # int16, as it is
        soundfile.write(folder / f"{voice}.flac", wave, RATE)
        (folder / f"{voice}.txt").write_text(clip["text"] + "\n")
        table.append(
            dict(
                name=voice,
                sex="female" if voice.startswith("f") else "male",
                accent="American",
                origin=f"espeak-ng {VOICES[voice].variant}",
                in_context=False,  # three times as many words of the speech would be wrong (README.md)
                transcript=clip["text"],
            )
        )
    table.sort(key=lambda row: row["name"] != DEFAULT_VOICE)  # stable: the default first
    rows = ",\n".join("  " + json.dumps(row) for row in table)
    (folder / "voices.json").write_text(f"[\n{rows}\n]\n")
    held = [dict(text=i["text"], voice=i["voice"], seconds=i["samples"] // FRAME * FRAME / RATE) for i in corpus.held]
    (NANO / "held_out.json").write_text("[\n" + ",\n".join(json.dumps(h) for h in held) + "\n]\n")
    (NANO / "words.txt").write_text("\n".join(WORDS) + "\n")
    speech = {v: [corpus.speech(i).numpy() for i in items[-_JUDGED:]] for v, items in of_voice.items()}
    judge = VoiceJudge.fitted(speech)
    judge.save(NANO / "judge.npz")
    right = [judge.voice(corpus.speech(i).numpy()) == i["voice"] for i in corpus.held]
    print(f"the judge names {np.mean(right):.1%} of espeak-ng's held-out sentences rightly")


if __name__ == "__main__":
    main()
