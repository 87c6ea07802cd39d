"""What a prediction tells while it works, and what it did."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

_EACH = 20  # inputs up to which each has a line
_INTERVAL = 5.0  # seconds between lines where there are more


@dataclass
class PredictReport:
    """What a prediction did.

    Attributes:
        images: Number of images and frames that were predicted.
        inputs: Number of images and videos that are finished.
        skipped: Inputs that were left out, or are damaged, with the reason.
        seconds: Time by what it was for: ``reading``, ``prediction``, ``drawing``, ``writing``.
        interrupted: Whether it was stopped before all inputs were done.
    """

    images: int = 0
    inputs: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    seconds: Counter[str] = field(default_factory=Counter)
    interrupted: bool = False

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Count the time inside."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[what] += time.perf_counter() - begin

    def __str__(self) -> str:
        total = sum(self.seconds.values())
        rate = f' ({self.images / total:.1f} images/s)' if total > 0 else ''
        parts = ', '.join(f'{what} {seconds:.1f} s' for what, seconds in self.seconds.items())
        ending = '' if self.images == 1 else 's'
        return f'{self.images} image{ending} in {total:.1f} s{rate}: {parts or "nothing done"}'


class Progress:
    """Lines about a prediction: one per input where there are few, or one in a few seconds.

    Args:
        total: Number of inputs.
        say: Called with each line.
        now: A clock, in seconds.
    """

    def __init__(
        self,
        total: int,
        say: Callable[[str], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total, self._say, self._now = total, say, now
        self._begin = self._last = now()

    def image(self, name: str, about: Callable[[], str], report: PredictReport) -> None:
        """An image is done; ``about`` gives what the model sees in it."""
        if self._total <= _EACH:
            self._say(f'{name}: {about()}')
        elif self._due():
            done = report.inputs + len(report.skipped)
            left = (self._total - done) * (self._now() - self._begin) / max(done, 1)
            rate = report.images / max(self._now() - self._begin, 1e-9)
            self._say(
                f'{done} of {self._total} inputs, {rate:.1f} images/s, about {_clock(left)} left'
            )

    def frame(self, name: str, number: int, count: int, report: PredictReport) -> None:
        """A frame of a video is done; ``count`` is 0 where their number is unknown."""
        if self._due():
            of = f' of about {count}' if count else ''
            rate = report.images / max(self._now() - self._begin, 1e-9)
            self._say(f'{name}: frame {number}{of}, {rate:.1f} images/s')

    def _due(self) -> bool:
        if self._now() - self._last < _INTERVAL:
            return False
        self._last = self._now()
        return True


def _clock(seconds: float) -> str:
    if seconds < 90:
        return f'{seconds:.0f} s'
    return f'{seconds / 60:.0f} min' if seconds < 5400 else f'{seconds / 3600:.1f} h'
