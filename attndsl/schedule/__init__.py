"""Which tiles to compute: exact schedules by refinement."""

from attndsl.schedule.building import Call, plan, specialise
from attndsl.schedule.model import MaskBank, Plan, Schedule, Tiles

__all__ = ["Call", "MaskBank", "Plan", "Schedule", "Tiles", "plan", "specialise"]
