"""Every kind of fault by name; changes when a file of kinds is added."""

from pipeline.emulator.fault_kinds import answers, connections, lifecycle, refusals
from pipeline.emulator.fault_kinds.registry import KINDS, Kind, Strike

__all__ = ["KINDS", "Kind", "Strike", "answers", "connections", "lifecycle", "refusals"]
