"""Every number of the recipe, and the ten voices."""

from __future__ import annotations

import os
from pathlib import Path

from espeak import Speaker

SEED = 1
WORK = Path(os.environ.get("NANO_WORK", "build/nano"))
"""Where corpus, weights in the making and logs go."""
CHECKPOINT = WORK / "checkpoint"

# Sound
RATE = 24_000
FRAME = 1_920  # samples of one codec frame: 80 ms
VOICES = {
    "m1": Speaker("en-us+m1", 35, 150),
    "m3": Speaker("en-us+m3", 40, 160),
    "m6": Speaker("en-us+m6", 45, 155),
    "m7": Speaker("en-us+m7", 25, 145),
    "us": Speaker("en-us", 45, 155),
    "klatt": Speaker("en-us+klatt", 45, 160),
    "f1": Speaker("en-us+f1", 40, 150),
    "f2": Speaker("en-us+f2", 35, 160),
    "f3": Speaker("en-us+f3", 40, 165),
    "f5": Speaker("en-us+f5", 45, 145),
}
PITCH_RANGE = 30  # of espeak-ng's 0 to 100; its default is 50
LOUDNESS = 0.08  # root mean square of an utterance

# Corpus
UTTERANCES = 20_000
HELD_OUT = 240  # sentences that are not in the training
HELD_OUT_SHARE = 8  # one sentence in so many is set aside by its checksum
SENTENCE_SHARE, SHORT_SHARE = 0.45, 0.3  # templates, strings of 1 to 3 words; the rest strings of 3 to 7 words

# Codec
CODEBOOK_SIZE = 64
N_CODEBOOKS = 16
CODE_DIM = 64
CODEC_HIDDEN, CODEC_FEED_FORWARD, CODEC_LAYERS, CODEC_HEADS = 96, 192, 2, 3  # of both halves
ENCODER_FILTERS = 6
SEMANTIC_WEIGHT = 0.3  # of the semantic latents' error in the encoder's loss
DECODER = dict(learning_rate=1.5e-3, batch=5, frames=12, warm_up_frames=2, minutes=46)
ENCODER = dict(learning_rate=1.5e-3, batch=12, frames=16, minutes=11)
REFERENCES = 4_000  # utterances the trained encoder encodes, for in-context cloning
REFERENCE_PAD_FRAMES = 6  # of silence after a reference, as the product pads clips

# Talker
HIDDEN, FEED_FORWARD, LAYERS, HEADS, KV_HEADS, HEAD_DIM = 192, 448, 4, 4, 2, 64
TEXT_HIDDEN = 128
PREDICTOR_HIDDEN, PREDICTOR_FEED_FORWARD, PREDICTOR_LAYERS, PREDICTOR_HEAD_DIM = 128, 256, 2, 32
CODEC_VOCABULARY = 3_072  # llama.cpp has this width built in

# Every training: the learning rate rises over these steps and falls over the last share of the time
WARM_UP_STEPS = 60
FALL = 0.4

TALKER = dict(learning_rate=3e-3, batch=32, minutes=54)
BETAS, WEIGHT_DECAY = (0.9, 0.98), 0.02
LEAST_CODE_WEIGHT = 0.2  # codes 1 to 15 weigh 1, 0.9, 0.8 ... down to here: the late ones are nearly noise
CODE_NOISE = 0.04  # of single codes of the history
SHORT_CROP, LONG_CROP, LONG_CROP_SHARE = (60, 160), (200, 320), 0.25  # mel frames that the speaker encoder gets
SPEAKER_WEIGHT = 0.1  # of telling the ten voices apart by their vectors
PREDICTED_SHARE = 0.25  # of the frames go through the predictor
NOISE_SHARE, NOISE_MOST = 0.7, 0.5  # utterances with a disturbed history, and the most of it that is disturbed
IN_CONTEXT_SHARE, IN_CONTEXT_LATE_SHARE, LATE = 0.1, 0.5, 0.6  # of the batches; in the last part of the time more
STEPWISE_SHARE, NO_LANGUAGE_SHARE, LOWER_CASE_SHARE = 0.05, 0.5, 0.15
DEFAULT_VOICE, NO_SPEAKER_SHARE = "us", 0.4  # who speaks when no speaker is given: that share of this voice's batches
SAMPLING = dict(
    do_sample=True,
    temperature=0.4,
    top_k=20,
    top_p=1.0,
    repetition_penalty=1.0,
    subtalker_dosample=True,
    subtalker_temperature=0.4,
    subtalker_top_k=20,
    subtalker_top_p=1.0,
    max_new_tokens=400,
)
