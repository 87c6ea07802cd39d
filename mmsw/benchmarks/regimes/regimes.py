"""The regimes of the matrix: what each one changes in a plain training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from .lion import SignMomentum
from .networks import NETWORKS, Network

OPTIMIZERS = MappingProxyType(
    {
        'AdamW': dict(type='AdamW', lr=1e-2, weight_decay=0.05),
        'SGD': dict(type='SGD', lr=0.05, momentum=0.9, weight_decay=1e-2),
        'sign': dict(type=SignMomentum, lr=1e-2, weight_decay=0.05),
    }
)
OPTIMIZER_LABELS = MappingProxyType(
    {'AdamW': 'AdamW', 'SGD': 'SGD, momentum', 'sign': 'sign of momentum'}
)
_CONTROL = 'control'
_DECAY = 0.5


@dataclass(frozen=True)
class Regime:
    """A way to train.

    Attributes:
        label: What reports call it.
        wrapper: Arguments of the optimizer wrapper beside the optimizer.
        hooks: Hooks of mmengine that it adds.
        with_cp: Whether the network recomputes parts in the backward pass.
        layer_decay: Whether the learning rate falls from the output to the input.
        frozen: Whether the first layers with zeros are trained only after two iterations.
        story: ``'once'``; ``'again'``: what is saved is loaded by a new run, twice; ``'killed'``:
            the process gets SIGKILL, and another one resumes.
        model_wrapper: What wraps the model in two processes; ``None``: there is one process.
        refused: Whether the hook refuses to keep zeros there; then nothing is trained.
    """

    label: str
    wrapper: Mapping[str, Any] = field(default_factory=dict)
    hooks: tuple[Mapping[str, Any], ...] = ()
    with_cp: bool = False
    layer_decay: bool = False
    frozen: bool = False
    story: str = 'once'
    model_wrapper: Mapping[str, Any] | None = None
    refused: bool = False

    @property
    def processes(self) -> int:
        """Processes that train together."""
        return 1 if self.model_wrapper is None else 2

    def decay_of(self, network: Network) -> dict[str, Any]:
        """What makes the learning rate of a network's parts fall, as an option of the wrapper."""
        if not self.layer_decay:
            return {}
        rates = {
            part: dict(lr_mult=_DECAY ** (depth + 1)) for part, depth in network.depths.items()
        }
        return dict(paramwise_cfg=dict(custom_keys=rates))


_AMP = dict(type='AmpOptimWrapper', dtype='bfloat16', loss_scale=dict(init_scale=2.0**10))
_CLIP = dict(clip_grad=dict(max_norm=0.1))
_ACCUMULATE = dict(accumulative_counts=2)
_EMA = dict(type='EMAHook', momentum=0.3)
_SWA = dict(type='EMAHook', ema_type='StochasticWeightAverage', update_buffers=True)
_DDP = dict(type='MMDistributedDataParallel', broadcast_buffers=False, device_ids=None)
_FSDP = dict(type='MMFullyShardedDataParallel', device_id='cpu')  # torch asks for a GPU else

REGIMES = MappingProxyType(
    {
        'plain': Regime('plain'),
        'amp': Regime('mixed precision', _AMP),
        'accumulation': Regime('gradient accumulation', _ACCUMULATE),
        'clipping': Regime('gradient clipping', _CLIP),
        'ema': Regime('EMA', hooks=(_EMA,)),
        'swa': Regime('SWA with buffers', hooks=(_SWA,)),
        'layer_decay': Regime('layer-wise decay', layer_decay=True),
        'frozen': Regime('frozen, trained later', frozen=True),
        'checkpointing': Regime('gradient checkpointing', with_cp=True),
        'together': Regime(
            'six at once',
            {**_AMP, **_ACCUMULATE, **_CLIP},
            hooks=(_EMA,),
            with_cp=True,
            layer_decay=True,
        ),
        'again': Regime('saved, loaded, saved', story='again'),
        'killed': Regime('kill -9, resumed', hooks=(_EMA,), story='killed'),
        'ddp': Regime('DDP, 2 processes', model_wrapper=_DDP),
        'fsdp': Regime('FSDP, 2 processes', model_wrapper=_FSDP, refused=True),
    }
)


class Cell(NamedTuple):
    """One training of the matrix.

    Attributes:
        network: Key of :data:`.networks.NETWORKS`.
        optimizer: Key of :data:`OPTIMIZERS`.
        regime: Key of :data:`REGIMES`.
        guarded: Whether the hook keeps the zeros; False for the control.
    """

    network: str
    optimizer: str
    regime: str
    guarded: bool = True

    def __str__(self) -> str:
        return '/'.join([*self[:3], *([] if self.guarded else [_CONTROL])])

    @classmethod
    def named(cls, name: str) -> Cell:
        """The cell of which this is the text."""
        network, optimizer, regime, *control = name.split('/')
        return cls(network, optimizer, regime, not control)

    @property
    def control(self) -> Cell:
        """The same training without the hook."""
        return self._replace(guarded=False)


CELLS = tuple(
    Cell(network, optimizer, regime)
    for network in NETWORKS
    for optimizer in OPTIMIZERS
    for regime in REGIMES
)
