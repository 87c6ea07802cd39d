"""An optimizer that is neither SGD nor Adam: its steps have one size, whatever the gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


class SignMomentum(torch.optim.Optimizer):
    """Steps by the sign of an interpolated momentum, with decoupled weight decay, as Lion does.

    With gradient ``g``, momentum ``m`` and weight ``w``::

        w < -w - lr * (sign(beta1 * m + (1 - beta1) * g) + weight_decay * w)
        m < -beta2 * m + (1 - beta2) * g

    A weight that gets the smallest gradient moves as far as one that gets the largest, so a zero
    that leaks at all is lost at once.

    Args:
        params: Parameters or groups of them.
        lr: Learning rate.
        betas: ``beta1`` and ``beta2``.
        weight_decay: Decay per unit of learning rate.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, dict(lr=lr, betas=betas, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step; returns what the closure returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            lr, (beta1, beta2) = group['lr'], group['betas']
            for weight in group['params']:
                if weight.grad is None:
                    continue
                momentum = self.state[weight].setdefault('momentum', torch.zeros_like(weight))
                direction = momentum.lerp(weight.grad, 1 - beta1).sign_()
                weight.mul_(1 - lr * group['weight_decay']).sub_(direction, alpha=lr)
                momentum.lerp_(weight.grad, 1 - beta2)
        return loss
