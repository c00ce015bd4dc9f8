"""One loop for every training: boxed in minutes of one core's time, resumable, logged.

    $WORK/NAME.state.pt   weights, optimizer and minutes spent; a run goes on from here
    $WORK/NAME.log.jsonl  a line every hundred steps

The learning rate stays at its height and falls in the last part of the time, so a run can be lengthened while it is
high.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from settings import FALL, SEED, WARM_UP_STEPS, WORK
from torch import Tensor, nn

_SAVE_EVERY = 120.0  # seconds
_LOG_EVERY, _CHECK_EVERY = 100, 500  # steps

RANK = int(os.environ.get("RANK", "0"))
WORLD = int(os.environ.get("WORLD_SIZE", "1"))


class Run:
    """Trains `module` for the minutes its settings give it, in all."""

    def __init__(
        self,
        name: str,
        module: nn.Module,
        settings: dict[str, Any],
        *,
        betas: tuple[float, float],
        weight_decay: float = 0.0,
        frozen: tuple[str, ...] = (),
    ) -> None:
        torch.set_num_threads(1)
        if WORLD > 1 and not dist.is_initialized():
            dist.init_process_group("gloo")
        self.name, self._module, self._settings = name, module, settings
        self._weights = [
            p for n, p in module.named_parameters() if p.requires_grad and not any(part in n for part in frozen)
        ]
        groups = [
            dict(params=[p for p in self._weights if p.ndim > 1], weight_decay=weight_decay),
            dict(params=[p for p in self._weights if p.ndim <= 1], weight_decay=0.0),
        ]
        self._optimizer = torch.optim.AdamW(groups, lr=0.0, betas=betas)
        self.step, self.minutes = 0, 0.0
        self._state = WORK / f"{name}.state.pt"
        if self._state.exists():
            state = torch.load(self._state)
            module.load_state_dict(state["module"])
            self._optimizer.load_state_dict(state["optimizer"])
            self.step, self.minutes = state["step"], state["minutes"]
            self._say(dict(resumed_at=self.minutes))

    @property
    def seed(self) -> int:
        """Another one for every process and after every resumption, or the same batches would come again."""
        return SEED + 1000 * RANK + self.step

    @property
    def done(self) -> float:
        """Share of the time that has passed, 0 to 1."""
        return min(1.0, self.minutes / self._settings["minutes"])

    def train(
        self,
        loss: Callable[[], tuple[Tensor, dict[str, Any]]],
        check: Callable[[], dict[str, float]] | None = None,
    ) -> None:
        """Calls `loss` for a batch at a time until the time is up; logs the means of the figures it returns."""
        figures: list[dict[str, Any]] = []
        last, saved = time.process_time(), time.monotonic()
        while self.done < 1:
            rate = self._settings["learning_rate"] * min(1, (self.step + 1) / WARM_UP_STEPS)
            rate *= max(0.02, min(1, (1 - self.done) / FALL))
            for group in self._optimizer.param_groups:
                group["lr"] = rate
            value, seen = loss()
            self._optimizer.zero_grad()
            value.backward()
            self._share_gradients()
            nn.utils.clip_grad_norm_(self._weights, 1.0)
            self._optimizer.step()
            self.step += 1
            figures.append(seen)
            now = time.process_time()
            self.minutes, last = self._agreed(self.minutes + (now - last) / 60), now
            if self.step % _LOG_EVERY == 0 or self.step == 10:
                self._say({k: sum(f[k] for f in figures) / len(figures) for k in seen})
                figures = []
            if check and RANK == 0 and self.step % _CHECK_EVERY == 0:
                self._say(check())
            if time.monotonic() - saved > _SAVE_EVERY:
                saved = time.monotonic()
                self._save()
        if check and RANK == 0:
            self._say(check())
        self._save()

    def _share_gradients(self) -> None:
        if WORLD == 1:
            return
        gradients = [p.grad for p in self._weights if p.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        parts = (flat / WORLD).split([g.numel() for g in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    @staticmethod
    def _agreed(minutes: float) -> float:
        """The first process' clock: all stop at the same step."""
        if WORLD == 1:
            return minutes
        clock = torch.tensor([minutes], dtype=torch.float64)
        dist.broadcast(clock, 0)
        return float(clock.item())

    def _say(self, figures: dict[str, float]) -> None:
        if RANK != 0:
            return
        line = dict(step=self.step, minutes=round(self.minutes, 2), **{k: round(v, 4) for k, v in figures.items()})
        print(self.name, *(f"{k} {v}" for k, v in line.items()), flush=True)
        with (WORK / f"{self.name}.log.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")

    def _save(self) -> None:
        if RANK != 0:
            return
        hidden = self._state.with_suffix(".new")
        state = dict(
            module=self._module.state_dict(),
            optimizer=self._optimizer.state_dict(),
            step=self.step,
            minutes=self.minutes,
        )
        torch.save(state, hidden)
        hidden.rename(self._state)
