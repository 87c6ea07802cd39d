"""Settings of dynamic sparse training, checked."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any

from mmsw.errors import SparsityError

from .allocate import check_sparsity
from .dynamic_state import is_plain
from .granularity import check_possible, granularity_of

STARTS = ('snip', 'erk', 'uniform', 'from_checkpoint')
PRUNES = ('magnitude', 'set')
GROWS = ('random', 'gradient', 'momentum')
REDISTRIBUTIONS = (None, 'momentum', 'magnitude', 'nonzeros')
_NEVER_CHANGE = ('sparsity', 'granularity', 'scope')  # while a training goes on
_CHOICES = {'start': STARTS, 'prune': PRUNES, 'grow': GROWS, 'redistribution': REDISTRIBUTIONS}
_OF_THE_PAST = ('start', 'seed')  # of no effect once a training has begun


@dataclass(frozen=True)
class DynamicSettings:
    """How a network is made and kept sparse (Shift-ConvNets, arXiv 2401.12736, its coarse pruning).

    Attributes:
        start: How the first masks come about. ``'snip'``: the units whose removal would change the
            loss on real batches most stay, ranked over all layers together (arXiv 1810.02340);
            ``'erk'``, ``'uniform'``: so many per layer, see :mod:`mmsw.sparsity.allocate`, those of
            the largest magnitude; ``'from_checkpoint'``: the masks that the network has.
        sparsity: Share of the units to prune, in ``[0, 1)``; ``None`` with ``'from_checkpoint'``.
        prune_rate: Share of a layer's kept units that the first update exchanges, in ``[0, 1]``.
        end_rate: The same at the end; in between lies a half cosine.
        prune: Which units go: those of the smallest ``'magnitude'`` (L2 norm), or ``'set'``, the
            smallest positive and the largest negative ones, in proportion to the numbers of both
            (SET, arXiv 1707.04780). The sign of a filter is that of the sum of its weights; a sum
            of zero counts as positive. In both, units that are all zero go first.
        grow: Which units come where others go: ``'random'``, those of the largest ``'gradient'``,
            or of the largest running mean of gradients, ``'momentum'``.
        redistribution: How many units grow in which layer. ``None``: as many as it dropped, so
            that every path keeps its number. Otherwise what all layers dropped is shared out to
            them, see :mod:`mmsw.sparsity.redistribution`: in proportion to the mean ``'momentum'``
            or ``'magnitude'`` of their kept weights, or to their number of ``'nonzeros'`` (sparse
            momentum, arXiv 1907.04840). All layers together keep their number.
        granularity: What a unit is: ``'filter'`` (a whole small kernel), ``'channel'`` (an input
            channel of a layer), ``'block RxC'`` (``R`` filters by ``C`` of their weights),
            ``'weight'``, or ``'N:M'``: single weights, ``N`` of each ``M`` consecutive ones of a
            filter, which are exchanged for others of their group.
        align_interval: Every so many updates the paths of a layer share one mask; in between each
            path goes its own way. ``None``: always its own way. The start is shared.
        scope: ``None``: the small kernels of shift-wise layers. A regular expression: all weights
            of matching name instead, each entry of the first dimension being a filter.
        seed: Of everything random, not negative.
    """

    start: str = 'snip'
    sparsity: float | None = None
    prune_rate: float = 0.3
    end_rate: float = 0.005
    prune: str = 'magnitude'
    grow: str = 'random'
    redistribution: str | None = None
    granularity: str = 'filter'
    align_interval: int | None = 131
    scope: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in list(vars(self).items()):
            object.__setattr__(self, name, plain_setting(name, value))
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f'{name} must be one of {known}, got {getattr(self, name)!r}')
        self._check_groups()
        if self.start == 'from_checkpoint':
            if self.sparsity is not None:
                raise ValueError(
                    "start='from_checkpoint' keeps the sparsity of the checkpoint: leave sparsity "
                    f'out, got {self.sparsity}'
                )
        elif self.sparsity is None:
            raise ValueError(f'start={self.start!r} needs sparsity, a share in [0, 1)')
        else:
            check_sparsity(self.sparsity)
        if not 0 <= self.end_rate <= self.prune_rate <= 1:
            raise ValueError(
                'expected 0 <= end_rate <= prune_rate <= 1, got '
                f'prune_rate={self.prune_rate}, end_rate={self.end_rate}'
            )
        if self.align_interval is not None and self.align_interval < 1:
            raise ValueError(
                f'align_interval must be at least 1 update, or None, got {self.align_interval}'
            )
        if self.seed < 0:
            raise ValueError(f'seed must not be negative, got {self.seed}')

    def _check_groups(self) -> None:
        """What goes with so many weights of every group; sets the sparsity that this means."""
        granularity = granularity_of(self.granularity)
        if not granularity.is_of_groups:
            return
        reasons = {
            'start': ('erk', 'it gives every layer a share of its own'),
            'prune': ('set', 'it goes by the signs in a whole layer'),
            'redistribution': (self.redistribution, 'it moves weights between layers'),
        }
        for name, (value, reason) in reasons.items():
            if value is not None and getattr(self, name) == value:
                raise ValueError(
                    f'{name}={value!r} does not go with granularity={self.granularity!r}, which '
                    f'fixes the number that every group of weights keeps: {reason}'
                )
        if self.sparsity is not None:
            check_possible(granularity, self.sparsity)
        elif self.start != 'from_checkpoint':
            object.__setattr__(self, 'sparsity', float(granularity.most_sparsity))

    @property
    def goes_by_gradients(self) -> bool:
        """Whether an update needs gradients of the loss."""
        return self.grow != 'random' or self.goes_by_momentum

    @property
    def goes_by_momentum(self) -> bool:
        """Whether an update needs their running mean."""
        return 'momentum' in (self.grow, self.redistribution)

    @classmethod
    def by_name(cls, given: Mapping[str, Any], beside: Collection[str] = ()) -> DynamicSettings:
        """Settings as a config gives them.

        Args:
            given: Settings by name.
            beside: Other names that the config may use, for the message.

        Raises:
            SparsityError: If there is no setting of a name.
            ValueError: If a setting has a value that makes no sense.
        """
        known = [setting.name for setting in fields(cls)]
        unknown = [name for name in given if name not in known]
        if unknown:
            raise SparsityError(
                f'sparse training has no setting {", ".join(unknown)}; known are '
                f'{", ".join([*known, *beside])}'
            )
        return cls(**given)

    def check_resumed(self, recorded: Mapping[str, Any]) -> None:
        """Refuse to go on with a training that has begun with settings that cannot change.

        Args:
            recorded: Settings that it has begun with.

        Raises:
            SparsityError: If another sparsity, granularity or scope is asked for.
        """
        mine = vars(self)
        if self.sparsity is None:  # that of the checkpoint
            recorded = {**recorded, 'sparsity': None}
        changed = differences(recorded, {name: mine[name] for name in _NEVER_CHANGE})
        if changed:
            raise SparsityError(
                f'cannot resume with other settings of sparse training: {"; ".join(changed)}. '
                'Resume with the settings of the checkpoint, or start a new run from its weights '
                '(load_from, without --resume)'
            )


def plain_setting(name: str, value: Any) -> Any:
    """A setting as a file can hold it; a number of numpy or torch becomes one of Python.

    Raises:
        ValueError: If it is no number, text or ``None``.
    """
    plain = value.item() if getattr(value, 'ndim', None) == 0 else value
    if not is_plain(plain):
        raise ValueError(
            f'{name} must be a number, a text or None, got {value!r} ({type(value).__name__})'
        )
    return plain


def differences(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Settings that are others now than a checkpoint records, each as a text of both values.

    Those that the checkpoint does not record, and those that have no effect once a training has
    begun, are left out.
    """
    return [
        f'{name} is {value!r}, in the checkpoint it is {recorded[name]!r}'
        for name, value in now.items()
        if name in recorded and name not in _OF_THE_PAST and recorded[name] != value
    ]
