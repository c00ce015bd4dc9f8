"""Every number of the recipe, and the ten voices: who they are blended from, and what they say."""

from __future__ import annotations

from dataclasses import dataclass

SEED = 1  # of Kokoro's noise source
RATE_HZ = 24_000
SECONDS = (5.0, 9.0)  # what a clip may last
LEAD_SECONDS, TAIL_SECONDS = 0.08, 0.16  # of near silence kept before and after the speech
SPEECH_DB = -40.0  # of a 10 ms window, relative to the loudest: quieter is not speech
FADE_SECONDS = 0.02  # at both ends
LEVEL_DBFS = -24.0  # root mean square of a clip
PEAK_DBFS = -1.0  # no sample is above
MAX_BYTES = 1_500_000  # of all ten clips

ACCENT = "Japanese"
"""Kokoro's name for the voices that are in the packages; they read US English phonemes here."""


@dataclass(frozen=True)
class Recipe:
    """One voice. weights: shares of Kokoro's style vectors, which sum to 1. speed: Kokoro's, 1 is normal."""

    name: str
    sex: str
    weights: dict[str, float]
    transcript: str
    speed: float = 1.0

    @property
    def origin(self) -> str:
        """The voices it is made of, with their shares in percent."""
        if len(self.weights) == 1:
            return f"Kokoro {next(iter(self.weights))}"
        return "blend of Kokoro " + " + ".join(f"{share:.0%} {name}" for name, share in self.weights.items())


# The first is the default voice of a Base model. Blends of jm_kumo with a higher voice make the male voices between.
VOICES = (
    Recipe(
        "mika",
        "female",
        {"jf_alpha": 1.0},
        "Good morning! We hope you slept well, and that you will enjoy the fresh air on your long journey.",
    ),
    Recipe(
        "yuki",
        "female",
        {"jf_gongitsune": 1.0},
        "My brother usually walks along the beach, watching the fishing boats come home.",
    ),
    Recipe(
        "rin",
        "female",
        {"jf_nezumi": 1.0},
        "We heard thunder over the valley, yet the garden looked wonderful when we woke this morning.",
    ),
    Recipe(
        "nami",
        "female",
        {"jf_tebukuro": 1.0},
        "She chose a quiet table near the fire, and ordered vegetable soup with fresh bread.",
    ),
    Recipe(
        "ken",
        "male",
        {"jm_kumo": 1.0},
        "The train to the mountains leaves early, so pack something warm and join us on the platform.",
    ),
    Recipe(
        "kaori",
        "female",
        {"jf_alpha": 0.5, "jf_tebukuro": 0.5},
        "Could you please bring the yellow folder from the office? You left it lying near the large window.",
    ),
    Recipe(
        "haru",
        "female",
        {"jf_alpha": 0.5, "jf_gongitsune": 0.5},
        "It was a pleasure to hear the choir sing. Their voices rose like birds in spring.",
    ),
    Recipe(
        "sora",
        "female",
        {"jm_kumo": 0.5, "jf_tebukuro": 0.5},
        "Jazz music floated out of the kitchen, and soon everyone under the oak tree began to hum and clap.",
    ),
    Recipe(
        "taro",
        "male",
        {"jm_kumo": 0.8, "jf_gongitsune": 0.2},
        "If the weather stays clear, the boys should finish painting the garage and choose a new color before lunch.",
    ),
    Recipe(
        "jun",
        "male",
        {"jm_kumo": 0.65, "jf_alpha": 0.35},
        "Thank you for calling. We close early on Thursday, but you can always visit us again tomorrow.",
    ),
)
