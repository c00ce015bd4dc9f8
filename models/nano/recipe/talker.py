"""Trains talker, code predictor and speaker encoder together, by teacher forcing on the corpus' codes.

    loss = code 0 (talker) + codes 1 to 15 (predictor, on a share of the frames) + a little for telling voices apart

The history the talker sees is disturbed, or it would go on from the last frames without reading the text.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from checkpoint import write_model
from codec import Corpus  # before qwen_tts: it stands in for torchaudio
from qwen_tts.core.models import Qwen3TTSConfig, Qwen3TTSForConditionalGeneration
from qwen_tts.core.models.modeling_qwen3_tts import mel_spectrogram
from settings import (
    BETAS,
    CHECKPOINT,
    CODE_NOISE,
    CODEBOOK_SIZE,
    DEFAULT_VOICE,
    FRAME,
    HIDDEN,
    IN_CONTEXT_LATE_SHARE,
    IN_CONTEXT_SHARE,
    LATE,
    LEAST_CODE_WEIGHT,
    LONG_CROP,
    LONG_CROP_SHARE,
    LOWER_CASE_SHARE,
    N_CODEBOOKS,
    NO_LANGUAGE_SHARE,
    NO_SPEAKER_SHARE,
    NOISE_MOST,
    NOISE_SHARE,
    PREDICTED_SHARE,
    RATE,
    SEED,
    SHORT_CROP,
    SPEAKER_WEIGHT,
    STEPWISE_SHARE,
    TALKER,
    VOICES,
    WEIGHT_DECAY,
    WORK,
)
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from training import Run
from transformers import AutoTokenizer

_NOTHING = -1
_IGNORED = -100  # cross_entropy's own
_CLIPS_PER_VOICE = 150  # whose mels are kept for the speaker encoder
_SORTED_BATCHES = 8  # drawn together and sorted by length, to pad less

_CODE_WEIGHTS = torch.tensor([max(LEAST_CODE_WEIGHT, 1 - 0.1 * i) for i in range(N_CODEBOOKS - 1)])
_CODE_WEIGHTS /= _CODE_WEIGHTS.sum()


def mel(sound: Tensor) -> Tensor:
    """[frames, 128] as the speaker encoder hears it."""
    made = mel_spectrogram(
        sound[None], n_fft=1024, num_mels=128, sampling_rate=RATE, hop_size=256, win_size=1024, fmin=0, fmax=12000
    )
    return made[0].T


@dataclass(frozen=True)
class Sample:
    """One utterance as the talker sees it. All [positions] but `codes`; _NOTHING where there is no row to add."""

    text: list[int]
    codes: np.ndarray  # [positions, 16]; in column 0 also the codec's control tokens
    speaker: int | None  # the position of the speaker's vector, if there is one
    first: int  # of the position that predicts the first frame
    frames: np.ndarray  # [frames, 16]


class Layouts:
    """Text, codes and control tokens in the order of the official prompt."""

    def __init__(self, config: dict[str, Any], tokenizer: Any) -> None:
        self._c, self._t, self._encode = config["talker_config"], config, lambda text: tokenizer(text)["input_ids"]
        self._role = self._encode("<|im_start|>assistant\n")

    def sample(
        self, texts: list[str], codes: list[np.ndarray], *, stepwise: bool, language: bool, speaker: bool
    ) -> Sample:
        """Several texts and codes in a row are in-context cloning: the first of them is the reference."""
        c, pad = self._c, self._t["tts_pad_token_id"]
        tags = [c["codec_nothink_id"], c["codec_think_bos_id"], c["codec_think_eos_id"]]
        if language:
            english = c["codec_language_id"]["english"]
            tags = [c["codec_think_id"], c["codec_think_bos_id"], english, c["codec_think_eos_id"]]
        words = [i for text in texts for i in self._encode(text)] + [self._t["tts_eos_token_id"]]
        frames = np.concatenate(codes)
        text = [*self._role, *[pad] * (len(tags) + speaker), self._t["tts_bos_token_id"]]
        codec = [*[_NOTHING] * len(self._role), *tags, *[_NOTHING] * speaker, c["codec_pad_id"]]
        n = len(frames) + 1
        if stepwise:
            first = len(text)
            text += (words + [pad] * n)[:n]
        else:
            first = len(text) + len(words)
            text += words + [pad] * n
            codec += [c["codec_pad_id"]] * len(words)
        codec += [c["codec_bos_id"]]
        rows = np.full((len(text), N_CODEBOOKS), _NOTHING)
        rows[: len(codec), 0] = codec
        rows[first + 1 :] = frames
        return Sample(text, rows, len(self._role) + len(tags) if speaker else None, first, frames)


class Teacher:
    """The model, and its loss for a batch of samples and reference mels."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.model = Qwen3TTSForConditionalGeneration(Qwen3TTSConfig(**config))
        talker = self.model.talker.config
        self.model.config._attn_implementation = talker._attn_implementation = "sdpa"
        talker.code_predictor_config._attn_implementation = "eager"  # faster than sdpa on sixteen positions
        for module in self.model.speaker_encoder.modules():
            if isinstance(module, nn.Conv1d):
                module.reset_parameters()
        self.voices = nn.Linear(HIDDEN, len(VOICES))
        self.all = nn.ModuleDict(dict(model=self.model, voices=self.voices))
        self._pad, self._eos = config["tts_pad_token_id"], talker.codec_eos_token_id

    def losses(
        self, samples: list[Sample], mels: Tensor, voices: Tensor, *, noise: Tensor | None, share: float
    ) -> dict[str, Tensor]:
        """noise: real frames [n, 16] to disturb the history with. share: of the frames, for the predictor."""
        talker = self.model.talker
        batch, n = len(samples), max(len(s.text) for s in samples)
        text = torch.full((batch, n), self._pad)
        codes = torch.full((batch, n, N_CODEBOOKS), _NOTHING)
        mask = torch.zeros(batch, n, dtype=torch.long)
        wanted = torch.full((batch, n), _IGNORED)
        for row, s in enumerate(samples):
            text[row, : len(s.text)] = torch.tensor(s.text)
            codes[row, : len(s.text)] = torch.from_numpy(s.codes)
            mask[row, : len(s.text)] = 1
            wanted[row, s.first : s.first + len(s.frames)] = torch.from_numpy(s.frames[:, 0])
            wanted[row, s.first + len(s.frames)] = self._eos
        if noise is not None:
            codes = self._disturbed(codes, noise)
        vectors = self.model.speaker_encoder(mels)
        rows = talker.text_projection(talker.model.text_embedding(text))
        rows = rows + talker.model.codec_embedding(codes[..., 0].clamp(min=0)) * (codes[..., :1] >= 0)
        is_frame = codes[..., 1] >= 0
        tables = talker.code_predictor.model.codec_embedding
        rows[is_frame] += sum(t(codes[..., i + 1][is_frame]) for i, t in enumerate(tables))
        places = torch.tensor([(row, s.speaker) for row, s in enumerate(samples) if s.speaker is not None])
        rows[places[:, 0], places[:, 1]] += vectors[places[:, 0]]
        hidden = talker.model(inputs_embeds=rows, attention_mask=mask, use_cache=False).last_hidden_state
        asked = wanted >= 0
        scores = talker.codec_head(hidden[asked])
        code_0 = cross_entropy(scores, wanted[asked])
        right = (scores.argmax(1) == wanted[asked]).float().mean()

        frames = torch.from_numpy(np.concatenate([s.frames for s in samples]))
        heard = torch.cat([hidden[row, s.first : s.first + len(s.frames)] for row, s in enumerate(samples)])
        chosen = torch.randperm(len(frames))[: max(1, int(share * len(frames)))]
        scores, _ = talker.forward_sub_talker_finetune(frames[chosen], heard[chosen])
        each = cross_entropy(scores.reshape(-1, CODEBOOK_SIZE), frames[chosen, 1:].reshape(-1), reduction="none")
        rest = each.view(-1, N_CODEBOOKS - 1).mean(0)
        return dict(
            code_0=code_0,
            right_0=right,
            predicted=(rest * _CODE_WEIGHTS).sum(),
            code_1=rest[0],
            code_3=rest[2],
            voice=cross_entropy(self.voices(vectors), voices),
        )

    @staticmethod
    def _disturbed(codes: Tensor, noise: Tensor) -> Tensor:
        """Some utterances lose some of their frames to frames of others, and single codes to any code."""
        batch, n = codes.shape[:2]
        is_frame = codes[..., 1] >= 0
        rate = torch.rand(batch, 1) * NOISE_MOST * (torch.rand(batch, 1) < NOISE_SHARE)
        hit = is_frame & (torch.rand(batch, n) < rate)
        codes = torch.where(hit[..., None], noise[torch.randint(len(noise), (batch, n))], codes)
        hit = is_frame[..., None] & (torch.rand(codes.shape) < CODE_NOISE)
        return torch.where(hit, torch.randint(CODEBOOK_SIZE, codes.shape), codes)


class Batches:
    """Draws utterances and reference clips of the same voice."""

    def __init__(self, corpus: Corpus, layouts: Layouts, seed: int) -> None:
        self._corpus, self._layouts, self._rng = corpus, layouts, random.Random(seed)
        self._codes = corpus.codes.numpy()
        by_voice = {v: [i for i in corpus.train if i["voice"] == v] for v in VOICES}
        self._mels = {v: [self._mel(i) for i in items[:_CLIPS_PER_VOICE]] for v, items in by_voice.items()}
        self._references: dict[str, list[tuple[str, np.ndarray]]] = {v: [] for v in VOICES}
        made = np.load(WORK / "references.npz")
        codes = np.split(made["codes"].astype(np.int64), np.cumsum(made["frames"])[:-1])
        for item, reference in zip(corpus.items, codes, strict=False):
            if not item["held"]:
                self._references[item["voice"]].append((item["text"], reference))
        self._ready: list[list[tuple[dict, tuple[str, np.ndarray] | None]]] = []

    def _mel(self, item: dict) -> Tensor:
        return mel(self._corpus.speech(item))

    def draw(self, size: int, in_context: float) -> tuple[list[Sample], Tensor, Tensor]:
        """Samples, [size, frames, 128] mels, [size] voices."""
        rng = self._rng
        if not self._ready:
            drawn = rng.choices(self._corpus.train, k=size * _SORTED_BATCHES)
            pairs = [
                (i, rng.choice(self._references[i["voice"]]) if rng.random() < in_context else None) for i in drawn
            ]
            pairs.sort(key=lambda p: p[0]["samples"] // FRAME + (len(p[1][1]) if p[1] else 0))
            self._ready = [pairs[i : i + size] for i in range(0, len(pairs), size)]
            rng.shuffle(self._ready)
        pairs = self._ready.pop()
        samples = [self._sample(item, reference) for item, reference in pairs]
        length = rng.randint(*LONG_CROP if rng.random() < LONG_CROP_SHARE else SHORT_CROP)
        mels = torch.stack([self._crop(item["voice"], length) for item, _ in pairs])
        names = list(VOICES)
        return samples, mels, torch.tensor([names.index(item["voice"]) for item, _ in pairs])

    def _sample(self, item: dict, reference: tuple[str, np.ndarray] | None) -> Sample:
        rng, frames = self._rng, self._corpus.frames
        text = item["text"].lower() if rng.random() < LOWER_CASE_SHARE else item["text"]
        texts, codes = [text], [self._codes[frames(item)]]
        if reference is not None:
            texts.insert(0, reference[0])
            codes.insert(0, reference[1])
        stepwise, language = rng.random() < STEPWISE_SHARE, rng.random() >= NO_LANGUAGE_SHARE
        speaker = reference is not None or item["voice"] != DEFAULT_VOICE or rng.random() >= NO_SPEAKER_SHARE
        return self._layouts.sample(texts, codes, stepwise=stepwise, language=language, speaker=speaker)

    def _crop(self, voice: str, length: int) -> Tensor:
        """[length, 128] out of one clip; a shorter clip is repeated."""
        clip = self._rng.choice(self._mels[voice])
        clip = clip.repeat(-(-length // len(clip)), 1)
        first = self._rng.randint(0, len(clip) - length)
        return clip[first : first + length]

    def held(self, first: int, n: int) -> tuple[list[Sample], Tensor, Tensor]:
        """Held-out sentences, without noise."""
        items = self._corpus.held[first : first + n]
        samples = [
            self._layouts.sample(
                [i["text"]], [self._codes[self._corpus.frames(i)]], stepwise=False, language=True, speaker=True
            )
            for i in items
        ]
        mels = torch.stack([self._mels[i["voice"]][0].repeat(3, 1)[:150] for i in items])
        return samples, mels, torch.tensor([list(VOICES).index(i["voice"]) for i in items])


def main() -> None:
    torch.manual_seed(SEED)
    config = json.loads((WORK / "config.json").read_text())
    teacher = Teacher(config)
    corpus = Corpus()
    run = Run("talker", teacher.all, TALKER, betas=BETAS, weight_decay=WEIGHT_DECAY)
    torch.manual_seed(run.seed)
    layouts = Layouts(config, AutoTokenizer.from_pretrained(CHECKPOINT))
    batches = Batches(corpus, layouts, run.seed)
    train_codes = corpus.codes[corpus.frames(corpus.train[0]).start :]
    teacher.all.train()

    def loss() -> tuple[Tensor, dict[str, Any]]:
        in_context = IN_CONTEXT_LATE_SHARE if run.done > LATE else IN_CONTEXT_SHARE
        samples, mels, voices = batches.draw(TALKER["batch"], in_context)
        parts = teacher.losses(samples, mels, voices, noise=train_codes, share=PREDICTED_SHARE)
        total = parts["code_0"] + parts["predicted"] + SPEAKER_WEIGHT * parts["voice"]
        return total, {k: v.item() for k, v in parts.items()}

    @torch.no_grad()
    def check() -> dict[str, float]:
        teacher.all.eval()
        parts = [teacher.losses(*batches.held(i, 60), noise=None, share=1.0) for i in range(0, len(corpus.held), 60)]
        teacher.all.train()
        write_model(teacher.model, config)
        return {f"held-out {k}": sum(p[k].item() for p in parts) / len(parts) for k in parts[0]}

    run.train(loss, check)


if __name__ == "__main__":
    main()
