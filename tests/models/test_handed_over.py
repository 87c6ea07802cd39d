"""``pretrained``: what a segmentor of mmseg hands over to its backbone."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from model_helpers import MINI, mini_net

from mmsw.apis.config import check_pretrained, drop_pretrained, set_pretrained
from mmsw.checkpoint import CheckpointError
from mmsw.models import ShiftWiseNet

FOREIGN = ['open-mmlab://resnet50_v1c', 'torchvision://resnet50', 'mmcls://vgg16', 'modelzoo://x']


@pytest.fixture
def published_path(data_dir: Path) -> Path:
    return data_dir / 'backbone_v2_mini_checkpoint.pth'


def test_a_file_goes_through_the_loader(published_path: Path) -> None:
    by_init_cfg = mini_net(init_cfg=dict(type='Pretrained', checkpoint=str(published_path)))
    handed_over = mini_net(pretrained=published_path)
    as_text = mini_net(pretrained=f'file://{published_path}')
    for net in (by_init_cfg, handed_over, as_text):
        net.init_weights()
        for key, tensor in by_init_cfg.state_dict().items():
            assert torch.equal(net.state_dict()[key], tensor), key
    assert handed_over.init_cfg == by_init_cfg.init_cfg
    with pytest.raises(CheckpointError, match='is of another network: depths'):
        mini_net(
            arch=dict(MINI, depths=[1, 1, 1, 1]), pretrained=str(published_path)
        ).init_weights()


def test_none_is_nothing() -> None:
    init_cfg = dict(type='TruncNormal', layer='Conv2d', std=0.1)
    assert mini_net(pretrained=None).init_cfg is None
    assert mini_net(pretrained=None, init_cfg=init_cfg).init_cfg == init_cfg


@pytest.mark.parametrize('address', FOREIGN)
def test_another_network_is_refused(address: str) -> None:
    with pytest.raises(CheckpointError, match=r'set model\.pretrained') as caught:
        ShiftWiseNet(arch=MINI, pretrained=address)
    assert address in str(caught.value)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(pretrained=True), 'pretrained=True is no file'),
        (
            dict(pretrained='a.pth', init_cfg=dict(type='Pretrained', checkpoint='b.pth')),
            "'b.pth'.* pretrained='a.pth' as well: keep one of them",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        ShiftWiseNet(arch=MINI, **arguments)


def config(model: str | None = None, backbone: str | None = None, **settings: object) -> Config:
    network = dict(type='ShiftWiseNet', arch=MINI, pretrained=backbone, **settings)
    return Config(dict(model=dict(type='EncoderDecoder', pretrained=model, backbone=network)))


@pytest.mark.parametrize('place', ['model', 'backbone'])
def test_it_counts_as_the_file_that_the_backbone_starts_from(place: str) -> None:
    with pytest.raises(CheckpointError, match=r'absent\.pth does not exist'):
        check_pretrained(config(**{place: 'absent.pth'}))
    with pytest.raises(CheckpointError, match=r'set model\.pretrained'):
        check_pretrained(config(**{place: FOREIGN[0]}))
    with pytest.raises(CheckpointError, match='keep one of them'):
        check_pretrained(
            config(**{place: 'a.pth'}, init_cfg=dict(type='Pretrained', checkpoint='b.pth'))
        )
    cfg = config(**{place: 'absent.pth'})
    assert drop_pretrained(cfg) == 'absent.pth'
    check_pretrained(cfg)


@pytest.mark.parametrize('place', ['model', 'backbone'])
def test_what_the_call_asks_for_wins(place: str, published_path: Path) -> None:
    cfg = config(**{place: FOREIGN[0]})
    set_pretrained(cfg, published_path)
    check_pretrained(cfg)
    assert cfg.model.backbone.init_cfg.checkpoint == str(published_path)
    assert cfg.model.pretrained is cfg.model.backbone.pretrained is None
    assert MODELS.build(cfg.model.backbone).init_cfg == cfg.model.backbone.init_cfg
    cfg = config(**{place: FOREIGN[0]})
    set_pretrained(cfg, False)
    assert MODELS.build(cfg.model.backbone).init_cfg is None


def test_what_another_backbone_starts_from_is_its_own_business() -> None:
    cfg = Config(dict(model=dict(pretrained=FOREIGN[0], backbone=dict(type='ResNetV1c'))))
    check_pretrained(cfg)
    set_pretrained(cfg, False)
    assert cfg.model.pretrained is None
    cfg = Config(dict(model=dict(pretrained='ViT.pt', backbone=dict(type='Own', pretrained='a'))))
    assert drop_pretrained(cfg) is None  # it may need to know
    assert (cfg.model.pretrained, cfg.model.backbone.pretrained) == ('ViT.pt', 'a')
    timm = Config(dict(model=dict(backbone=dict(type='TIMMBackbone', pretrained=True))))
    assert drop_pretrained(timm) is None
    check_pretrained(timm)
    assert timm.model.backbone.pretrained is True
