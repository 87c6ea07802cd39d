"""The network inside of what mmengine wraps it in."""

from __future__ import annotations

from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import nn

from mmsw.errors import UsageError

_SHARDING = {'FullyShardedDataParallel', 'MMDeepSpeedEngineWrapper', 'CollosalAIModelWrapper'}


def unwrapped(model: nn.Module) -> nn.Module:
    """The model itself, without the wrappers for several processes and for augmented tests."""
    if is_model_wrapper(model):
        model = model.module
    return model.module if isinstance(model, BaseTTAModel) else model


def refuse_sharded(model: nn.Module, what: str) -> None:
    """Refuse a model whose weights are cut into pieces for several processes.

    Args:
        model: As the runner has it.
        what: What cannot work on it, for the message.

    Raises:
        UsageError: If it, or a part of it, is under FSDP, DeepSpeed or ColossalAI.
    """
    names = {base.__name__ for module in model.modules() for base in type(module).__mro__}
    pieces = any(type(parameter).__name__ == 'DTensor' for parameter in model.parameters())
    found = sorted(names & _SHARDING) or (['fully_shard'] if pieces else [])
    if found:
        raise UsageError(
            f'{what} cannot work under {found[0]}: it cuts weights into flat pieces, which no mask '
            'of a layer goes with. Use MMDistributedDataParallel, the default for several processes'
        )
