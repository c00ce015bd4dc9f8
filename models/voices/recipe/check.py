"""Checks the ten clips: check.py [--picture FILE.png]. Prints one line per clip; exit code 1 if anything is amiss.

What must hold: no word wrong for Whisper base, greedy and with 5 beams; 5 to 9 seconds, 24 kHz mono 16 bit; the
level of the settings, no clipping, no offset; a short silence before and after; together every sound of English, and
less than 1.5 MB.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import soundfile
from ears import Ears, words_wrong
from kokoro import phonemes
from make import FOLDER
from settings import LEAD_SECONDS, LEVEL_DBFS, MAX_BYTES, PEAK_DBFS, RATE_HZ, SECONDS, TAIL_SECONDS, VOICES
from sound import db, edges, quiet_db

# Consonants and vowels of General American, as espeak-ng writes them.
SOUNDS = """
p b t d k ɡ tʃ dʒ f v θ ð s z ʃ ʒ h m n ŋ l ɹ j w
iː ɪ eɪ ɛ æ ɑː ɔ oʊ ʊ uː ʌ ə ɜː ɚ aɪ aʊ ɔɪ
"""


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--picture", type=Path, help="spectrograms of all clips")
    picture = arguments.parse_args().picture
    ears, faults, clips = Ears(), [], {}
    print("name   seconds  level  peak  quiet  lead  tail  bytes   words wrong")
    for voice in VOICES:
        path = FOLDER / f"{voice.name}.flac"
        info = soundfile.info(path)
        samples = clips[voice.name] = soundfile.read(path)[0]
        understood = ears.text(path, beams=1)
        wrong = [words_wrong(voice.transcript, text) for text in (understood, ears.text(path, beams=5))]
        first, last = edges(samples)
        lead, tail = first / RATE_HZ, (len(samples) - last) / RATE_HZ
        level, peak = db(np.sqrt((samples**2).mean())), db(np.abs(samples).max())
        print(
            f"{voice.name:6} {info.duration:6.2f} {level:7.1f} {peak:5.1f} {quiet_db(samples):6.1f} "
            f"{lead:5.2f} {tail:5.2f} {path.stat().st_size:6}   {wrong[0]}, {wrong[1]}  {understood}"
        )
        holds = {
            "words": not any(wrong),
            "seconds": SECONDS[0] <= info.duration <= SECONDS[1],
            "format": (info.samplerate, info.channels, info.subtype) == (RATE_HZ, 1, "PCM_16"),
            "level": abs(level - LEVEL_DBFS) < 1,
            "peak": peak <= PEAK_DBFS + 0.1,
            "silence": 0 < lead <= LEAD_SECONDS + 0.02 and 0 < tail <= TAIL_SECONDS + 0.02,
            "offset": abs(samples.mean()) < 1e-3,
        }
        faults += [f"{voice.name}: {what}" for what, good in holds.items() if not good]
    n_bytes = sum((FOLDER / f"{voice.name}.flac").stat().st_size for voice in VOICES)
    said = "".join(phonemes(voice.transcript) for voice in VOICES)
    said = said.replace("r", "ɹ").replace("ɐ", "ə").replace("ɔːɹ", "ɔɹ").replace("oːɹ", "ɔɹ")
    sounds = SOUNDS.split()
    missing = [sound for sound in sounds if sound not in said]
    print(f"together {n_bytes} bytes; {len(sounds) - len(missing)} of {len(sounds)} sounds")
    faults += [f"missing sounds: {' '.join(missing)}"] * bool(missing) + ["bytes"] * (n_bytes >= MAX_BYTES)
    if picture:
        _draw(clips, picture)
    sys.exit("\n".join(faults) or 0)


def _draw(clips: dict[str, np.ndarray], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure((16, 2.2 * len(clips)), layout="constrained")
    for axes, (name, samples) in zip(figure.subplots(len(clips)), clips.items(), strict=True):
        axes.specgram(samples, NFFT=512, Fs=RATE_HZ, noverlap=384, vmin=-150, vmax=-40)
        axes.set_ylabel(name)
    figure.savefig(path, dpi=70)


if __name__ == "__main__":
    main()
