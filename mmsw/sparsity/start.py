"""Which units dynamic sparse training starts with; all paths of a layer share them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from mmsw.errors import SparsityError
from mmsw.wording import listed

from .allocate import erk_counts, keep_best, uniform_counts
from .dynamic_settings import DynamicSettings
from .granularity import granularity_of
from .group_exchange import best_of_groups
from .select import keep_largest_number
from .units import kept_weight, unit_norms, unit_sums


def start_units(
    layers: Mapping[str, nn.Module],
    groups: Mapping[str, Sequence[str]],
    settings: DynamicSettings,
    gradients: Mapping[str, Tensor] | None,
) -> tuple[dict[str, Tensor], list[str]]:
    """Units to keep, by layer.

    Args:
        layers: Masked weights by name: the paths of shift-wise layers, and others.
        groups: Names of the paths by layer.
        settings: ``start`` is ``'snip'``, ``'erk'`` or ``'uniform'``.
        gradients: For ``'snip'``: gradient of the loss by name, of the weights' shape.

    Returns:
        By layer, boolean ``[n]``, and the layers that keep a single unit per path, the least there
        is.

    Raises:
        SparsityError: If a weight or gradient is not finite, or all gradients of a weight are zero.
        ValueError: If a gradient is missing.
    """
    if settings.start == 'snip':
        checked = _checked(layers, gradients)
        saliency = {
            group: _saliency(
                [layers[name] for name in names], [checked[n] for n in names], settings
            )
            for group, names in groups.items()
        }
        return _best(saliency, settings) or keep_best(saliency, settings.sparsity)
    scores = {
        group: sum(unit_norms(kept_weight(layers[n]), settings.granularity) for n in names)
        for group, names in groups.items()
    }
    if chosen := _best(scores, settings):
        return chosen
    sizes = {group: len(score) for group, score in scores.items()}
    if settings.start == 'uniform':
        counts = uniform_counts(sizes, settings.sparsity)
    else:
        shapes = {group: layers[names[0]].weight.shape for group, names in groups.items()}
        counts = erk_counts(shapes, sizes, settings.sparsity)
    least = [group for group, count in counts.items() if count == 1 < sizes[group]]
    return {group: keep_largest_number(scores[group], counts[group]) for group in sizes}, least


def _best(
    scores: Mapping[str, Tensor], settings: DynamicSettings
) -> tuple[dict[str, Tensor], list[str]] | None:
    """The best of every group of weights, if the granularity is of groups."""
    granularity = granularity_of(settings.granularity)
    if not granularity.is_of_groups:
        return None
    return {name: best_of_groups(score, granularity) for name, score in scores.items()}, []


def _checked(
    layers: Mapping[str, nn.Module], gradients: Mapping[str, Tensor] | None
) -> Mapping[str, Tensor]:
    """The gradients, if there is one of every layer, and none is all zero."""
    missing = sorted(set(layers) - set(gradients or {}))
    if missing:
        raise ValueError(f"start='snip' needs gradients; there are none of {listed(missing)}")
    silent = [name for name in layers if not bool(gradients[name].any())]
    if silent:
        raise SparsityError(
            "start='snip' ranks weights by the gradient of the loss, which is zero in all "
            f'of {len(silent)} of {len(layers)} layers ({listed(silent)}): they take '
            'no part in the loss, or are multiplied by zero. Leave these layers out of the '
            "model, freeze them, or choose start='erk' or 'uniform'"
        )
    return gradients


def _saliency(
    paths: Sequence[nn.Module], gradients: Sequence[Tensor], settings: DynamicSettings
) -> Tensor:
    """|derivative of the loss by a factor on the unit|: what its removal changes, to first
    order; the paths of a layer are removed together."""
    return sum(
        unit_sums(
            path.weight.detach().cpu().double() * gradient.cpu().double(), settings.granularity
        )
        for path, gradient in zip(paths, gradients, strict=True)
    ).abs()
