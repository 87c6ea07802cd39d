"""What a config lets its backbone start from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..digests import digest, file_digest


def configured_start(cfg: Config) -> dict[str, Any] | None:
    """``init_cfg`` of the backbone, whether the config writes it so or as ``pretrained``.

    Args:
        cfg: Config of a segmentor or detector.

    Returns:
        The setting; ``None`` if the backbone starts from random values.
    """
    backbone = cfg.model.backbone
    for part in (backbone, cfg.model):
        if isinstance(part.get('pretrained'), str):
            return dict(type='Pretrained', checkpoint=part['pretrained'])
    init_cfg = backbone.get('init_cfg')
    return dict(init_cfg) if isinstance(init_cfg, dict) else init_cfg or None


def start_digest(cfg: Config) -> str:
    """What such a start depends on: the setting, and the content of a local file."""
    start = configured_start(cfg)
    path = start.get('checkpoint') if isinstance(start, dict) else None
    local = isinstance(path, str) and '://' not in path and Path(path).is_file()
    return digest([start, file_digest(Path(path)) if local else None])
