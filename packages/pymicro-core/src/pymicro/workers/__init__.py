"""Worker processes: one supervisor, and as many processes of the same program as it was told to keep.

Nothing but the hand-over is imported here: a program that runs in one process needs none of it.
"""

from pymicro.workers._handover import Handover, handed_over

__all__ = ["Handover", "handed_over"]
