"""What every wire works with."""

from __future__ import annotations

from dataclasses import dataclass

from .metrics import Metrics
from .model import ModelHolder
from .runaways import Runaways
from .scheduler import Scheduler
from .settings import Settings
from .voices import Voices

__all__ = ["Services"]


@dataclass(frozen=True)
class Services:
    """One server's parts; made by `create_app`, given to each wire's router."""

    settings: Settings
    model: ModelHolder
    scheduler: Scheduler
    voices: Voices
    metrics: Metrics
    runaways: Runaways
    model_name: str
    """As clients are shown it, also before the model is loaded."""
