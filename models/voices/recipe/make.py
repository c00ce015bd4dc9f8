"""Makes the ten clips and the table the package reads: ../NAME.flac and ../voices.json."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import soundfile
from kokoro import Kokoro
from settings import ACCENT, RATE_HZ, SEED, VOICES
from sound import cut_and_levelled, pitch_hz

FOLDER = Path(__file__).parents[1]


def main() -> None:
    kokoro, table = Kokoro(SEED), []
    for voice in VOICES:
        sound = cut_and_levelled(kokoro.speak(voice.transcript, voice.weights, voice.speed))
        samples = np.rint(sound * 32767).astype(np.int16)
        soundfile.write(FOLDER / f"{voice.name}.flac", samples, RATE_HZ, compression_level=1.0)
        table.append(
            {
                "name": voice.name,
                "sex": voice.sex,
                "accent": ACCENT,
                "pitch_hz": pitch_hz(samples / 32768),
                "origin": voice.origin,
                "transcript": voice.transcript,
            }
        )
    rows = ",\n".join("  " + json.dumps(row) for row in table)
    (FOLDER / "voices.json").write_text(f"[\n{rows}\n]\n", "utf-8")


if __name__ == "__main__":
    main()
