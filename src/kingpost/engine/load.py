"""Chooses the engine of a platform."""

from __future__ import annotations

from kingpost.engine.base import Engine
from kingpost.engine.process import ProcessEngine
from kingpost.settings import Settings


def make_engine(settings: Settings) -> Engine:
    return ProcessEngine(settings.data, settings.sandbox)
