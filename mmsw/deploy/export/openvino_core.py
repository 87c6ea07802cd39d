"""The one ``openvino.Core`` of a process."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import openvino


@cache
def openvino_core() -> openvino.Core:
    """The core, made at the first call, which stays until the process ends.

    A core that compiles for the CPU gives its thread a stack for signals, and puts the one before
    it back when it goes. Of two cores, the second would put back that of the first, whose memory is
    gone by then: the next signal, that of a finished worker of a data loader for instance, would
    end the process.
    """
    import openvino

    return openvino.Core()
