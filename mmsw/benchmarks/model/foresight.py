"""What a call will take, from what smaller ones took: nobody waits for one that takes an hour."""

from __future__ import annotations

from collections.abc import Callable

_SMALLEST = 64  # pixels of the first probe's side


class Foresight:
    """Seconds and bytes of a contender's calls, in proportion to the pixels of the images.

    Where the known calls say that one would be too slow, larger probes come first as long as they
    are cheap: on small images a call's fixed cost counts, so their forecast is too high.

    Args:
        probe: Seconds and bytes of a call on one image of a crop.
        limit: Seconds that a call may take.
    """

    def __init__(self, probe: Callable[[int], tuple[float, int]], limit: float) -> None:
        self._probe, self._limit = probe, limit
        self._known: dict[int, tuple[float, int]] = {}  # pixels -> seconds and bytes

    def __call__(self, crop: int, batch: int) -> tuple[float, float]:
        """Forecast for a call; probes where nothing is known yet."""
        wanted, side = batch * crop**2, _SMALLEST
        if not self._known:
            self.learn(side, 1, *self._probe(side))
        while True:
            pixels = max((k for k in self._known if k <= wanted), default=min(self._known))
            took, held = self._known[pixels]
            forecast = took * wanted / pixels, held * wanted / pixels
            side *= 2
            if forecast[0] <= self._limit or side > crop or took * side**2 / pixels > self._limit:
                return forecast
            if side**2 > pixels:
                self.learn(side, 1, *self._probe(side))

    def learn(self, crop: int, batch: int, seconds: float, peak: int) -> None:
        """Take down what a call took."""
        self._known[batch * crop**2] = seconds, peak
