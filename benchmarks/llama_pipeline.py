"""llama.cpp's own Qwen3-TTS pipeline (libmtmd), driven through llama-cpp-python: what we are compared with.

Run as a program it speaks a fixed number of frames, twice, and prints one line of JSON:

    python benchmarks/llama_pipeline.py TALKER.gguf MMPROJ.gguf --frames 60 --threads 2
"""

from __future__ import annotations

import argparse
import ctypes
import json
import resource
import time
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
from llama_cpp import mtmd_cpp
from numpy.typing import NDArray

_PCM = 1  # MTMD_HELPER_GEN_AUDIO_OUTTYPE_PCM
_TEXT = "The quick brown fox jumps over the lazy dog, again and again."


class LlamaPipeline:
    """Both files, loaded as `llama-tts` loads them.

    plain_buffers: keep the talker out of ggml's extra buffer types, for a build in which AMX crashes.
    """

    def __init__(
        self, talker: Path, mmproj: Path, n_threads: int, n_positions: int = 512, plain_buffers: bool = False
    ) -> None:
        llama_cpp.llama_backend_init()
        model_params = llama_cpp.llama_model_default_params()
        if plain_buffers:
            model_params.use_extra_bufts = False
        self._model = llama_cpp.llama_model_load_from_file(str(talker).encode(), model_params)
        if not self._model:
            raise RuntimeError(f"llama.cpp cannot load {talker}")
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = n_positions
        params.n_threads = params.n_threads_batch = n_threads
        params.embeddings = True
        self._context = llama_cpp.llama_init_from_model(self._model, params)
        mtmd_params = mtmd_cpp.mtmd_context_params_default()
        mtmd_params.n_threads = n_threads
        mtmd_params.use_gpu = False
        mtmd_params.warmup = False
        self._mtmd = mtmd_cpp.mtmd_init_from_file(str(mmproj).encode(), self._model, mtmd_params)
        if not self._mtmd:
            raise RuntimeError(f"libmtmd cannot load {mmproj}")
        self._generator = mtmd_cpp.mtmd_helper_gen_audio_init(self._context, self._mtmd)
        vocabulary = llama_cpp.llama_model_get_vocab(self._model)
        self._n_vocabulary = llama_cpp.llama_vocab_n_tokens(vocabulary)

    def speak(self, text: str, n_frames: int, language: str = "english") -> NDArray[np.float32]:
        """Exactly n_frames, end of speech suppressed, code 0 the likeliest -> samples [n_frames * 1920] at 24 kHz"""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)
        prompt = text.encode()
        request = mtmd_cpp.mtmd_helper_gen_audio_inp(
            seq_id=0, prompt=prompt, prompt_len=len(prompt), speaker_ref=None, lang=language.encode(),
            top_k=50, top_p=1.0, seed=0, out_type=_PCM,
        )  # fmt: skip
        _check(mtmd_cpp.mtmd_helper_gen_audio_set_input(self._generator, ctypes.byref(request)))
        while (left := mtmd_cpp.mtmd_helper_gen_audio_step_prompt(self._generator, 512)) > 0:
            pass
        _check(left)
        hidden: Any = llama_cpp.llama_get_embeddings_ith(self._context, -1)
        for _ in range(n_frames):
            logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(self._context, -1), (self._n_vocabulary,))
            codes_start = self._n_vocabulary - 3072
            token = codes_start + int(np.argmax(logits[codes_start : codes_start + 2048]))
            next_hidden, stopped = ctypes.POINTER(ctypes.c_float)(), ctypes.c_bool(False)
            _check(
                mtmd_cpp.mtmd_helper_gen_audio_step_gen(
                    self._generator, token, hidden, ctypes.byref(next_hidden), ctypes.byref(stopped)
                )
            )
            hidden = next_hidden
        rate, data = ctypes.c_int32(), ctypes.POINTER(ctypes.c_char)()
        length, n_samples = ctypes.c_size_t(), ctypes.c_int64()
        _check(
            mtmd_cpp.mtmd_helper_gen_audio_get_output(
                self._generator, ctypes.byref(rate), ctypes.byref(data), ctypes.byref(length), ctypes.byref(n_samples)
            )
        )
        address = ctypes.cast(data, ctypes.POINTER(ctypes.c_float))
        return np.ctypeslib.as_array(address, (n_samples.value,)).copy()


def _check(status: int) -> None:
    if status != 0:
        raise RuntimeError(f"libmtmd failed with status {status}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("talker", type=Path)
    arguments.add_argument("mmproj", type=Path)
    arguments.add_argument("--frames", type=int, default=60)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--plain-buffers", action="store_true", help="for a build in which AMX crashes")
    wanted = arguments.parse_args()
    started = time.perf_counter()
    pipeline = LlamaPipeline(wanted.talker, wanted.mmproj, wanted.threads, plain_buffers=wanted.plain_buffers)
    load_seconds = time.perf_counter() - started
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        samples = pipeline.speak(_TEXT, wanted.frames)
        seconds.append(time.perf_counter() - started)
    first_seconds, work_seconds = seconds
    print(
        json.dumps(
            {
                "runtime": "libmtmd",
                "frames": wanted.frames,
                "load_seconds": load_seconds,
                "first_seconds": first_seconds,
                "first_rtf": first_seconds / (wanted.frames * 0.08),
                "work_seconds": work_seconds,
                "rtf": work_seconds / (wanted.frames * 0.08),
                "samples": len(samples),
                "peak_rss_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
            }
        )
    )


if __name__ == "__main__":
    main()
