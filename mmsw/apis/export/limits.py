"""How far the results of an exported file may be from those of PyTorch, by its precision."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Largest differences that pass.

    Attributes:
        logits: Of a logit, as a share of the largest; ``None`` where only results count.
        pixels: Share of the pixels that may change their class.
        boxes: Of a corner, in pixels of the program's input.
        scores: Of a score.
        masks: Of a probability in the mask of a box.
        mask_pixels: Share of the pixels of two masks of an object that may be in one alone.
        objects: Share of the objects that may be found on one side alone.
        least_score: Objects of lower scores are not looked at.
    """

    logits: float | None
    pixels: float
    boxes: float | None
    scores: float | None
    masks: float | None
    mask_pixels: float
    objects: float
    least_score: float

    def of_output(self, name: str) -> float | None:
        """The limit of an output by its name; ``None`` for one without."""
        return {
            'logits': self.logits, 'boxes': self.boxes, 'scores': self.scores, 'masks': self.masks,
        }.get(name)  # fmt: skip


LIMITS = {
    'float32': Limits(1e-5, 1e-3, 1e-2, 1e-4, 1e-3, 0.01, 0.01, 0.0),
    'float16': Limits(2e-2, 0.02, 1.0, 2e-2, 0.1, 0.05, 0.05, 0.3),
    'bfloat16': Limits(0.1, 0.05, 8.0, 0.1, 0.5, 0.2, 0.15, 0.3),
    'int8': Limits(None, 0.1, None, None, None, 0.3, 0.25, 0.3),
}
