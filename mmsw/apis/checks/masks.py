"""Whether objects have the masks that a detector is to learn."""

from __future__ import annotations

from typing import Any

from torch import nn

from mmsw.datasets.coco_annotations import explain_outline
from mmsw.errors import DataError

from .built_datasets import infos, label_loaders, leaves, of_others, transforms

_MOST_IMAGES = 10_000  # under a second


def check_masks(dataset: Any, model: nn.Module, name: str) -> None:
    """Refuse objects without a mask, or with a wrong one, where the pipeline loads masks.

    Args:
        dataset: A built data set; of every part 10,000 images at most are looked at.
        model: The detector; the cure depends on it.
        name: Of the loader, for the message.

    Raises:
        DataError: If there are such objects.
    """
    for leaf in leaves(dataset):
        loaders = [item for item in label_loaders(leaf) if getattr(item.loader, 'with_mask', False)]
        items = list(transforms(leaf))
        if not loaders or of_others(map(type, items[: items.index(loaders[0])])):
            continue  # these may make masks
        total = bare = 0
        for info in infos(leaf, _MOST_IMAGES):
            objects = info.get('instances', ())
            _check_outlines(info, leaf, name)
            total += len(objects)
            bare += sum('mask' not in item for item in objects)
        if bare:
            raise DataError(
                f'{name}: {bare} of the {total} annotations looked at in '
                f'{getattr(leaf, "ann_file", "its list")} have no mask (segmentation is missing or '
                f'empty): add the masks, or {_cure(leaf, loaders[0], dataset, model, name)}'
            )


def _check_outlines(info: dict, leaf: Any, name: str) -> None:
    shape = (info['height'], info['width']) if {'height', 'width'} <= info.keys() else None
    for index, item in enumerate(info.get('instances', ())):
        mask = item.get('mask')
        problem = explain_outline(mask, shape) if isinstance(mask, (list, dict)) else None
        if problem:
            raise DataError(
                f'{name}: object {index} of image {info.get("img_path")} in '
                f'{getattr(leaf, "ann_file", "its list")} has {problem}'
            )


def _cure(leaf: Any, loader: Any, dataset: Any, model: nn.Module, name: str) -> str:
    detector = 'take a detector without masks, such as configs/retinanet_sw_t_1x_coco.py'
    if getattr(getattr(model, 'roi_head', None), 'mask_head', None) is None:
        return detector
    place = 'with_mask=False in LoadAnnotations of every pipeline'
    top = list(getattr(getattr(leaf, 'pipeline', None), 'transforms', ()))
    if leaf is dataset and loader in top:
        place = f'{name}.dataset.pipeline.{top.index(loader)}.with_mask=False'
    return (
        f'{detector}, or train without masks: --cfg-options model.roi_head.mask_head=None '
        f"model.roi_head.mask_roi_extractor=None {place}, and metric='bbox' in the evaluators"
    )
