"""fold_model: same predictions, nothing folded that must not be, numbers that are right."""

from __future__ import annotations

import copy
import importlib
from pathlib import Path

import pytest
import torch
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule, revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmsw.analysis.complexity import complexity
from mmsw.apis import UsageError, init_model, load_config, register_toolbox
from mmsw.deploy import fold_model, take_folded_form
from mmsw.models import ShiftWiseNet
from mmsw.sparsity import attach_masks

ROOT = Path(__file__).resolve().parents[2]
UPERNET = ROOT / 'tests/data/upernet_mini_ade20k.py'
RETINANET = ROOT / 'tests/data/retinanet_mini_coco.py'
MASK_RCNN = ROOT / 'configs/demo/mask_rcnn_sw_mini_scenes.py'
TINY = dict(
    type='ShiftWiseNet', arch=dict(depths=[1, 1, 1, 1], dims=[8, 8, 8, 8]),
    big_kernels=(7, 7, 5, 3), layer_scale_init_value=1.0,
)  # fmt: skip


def built(path: Path, options: dict | None = None, backbone: dict | None = None) -> nn.Module:
    """The model of a config with lively weights and statistics, in evaluation mode."""
    cfg = load_config(path, options)
    if backbone:
        cfg.model.backbone = backbone
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(register_toolbox(cfg)):
        model = revert_sync_batchnorm(MODELS.build(copy.deepcopy(cfg.model)))
    enliven(model)
    return model.eval()


def enliven(model: nn.Module) -> None:
    for name, buffer in model.named_buffers():
        if name.endswith('running_mean'):
            buffer.normal_(std=0.1)
        elif name.endswith('running_var'):
            buffer.uniform_(0.5, 2)
    with torch.no_grad():
        for name, param in model.named_parameters():
            if name.endswith(('conv_seg.weight', 'cls.weight', 'reg.weight', 'logits.weight')):
                param.normal_(std=0.2)
            elif param.dim() == 1 and 'backbone' not in name and name.endswith('.weight'):
                param.uniform_(0.5, 1.5)


def predictions(model: nn.Module, scope: str, seed: int = 1) -> BaseDataElement:
    torch.manual_seed(seed)
    kind = 'SegDataSample' if scope == 'mmseg' else 'DetDataSample'
    structures = pytest.importorskip(f'{scope}.structures', reason=f'{scope}: not installed')
    sample = getattr(structures, kind)(
        metainfo=dict(
            img_shape=(64, 64), ori_shape=(64, 64), pad_shape=(64, 64), batch_input_shape=(64, 64),
            scale_factor=(1.0, 1.0), img_id=seed,
        )
    )  # fmt: skip
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    with torch.no_grad(), DefaultScope.overwrite_default_scope(scope):
        (result,) = model.test_step(dict(inputs=[image], data_samples=[sample]))
    return result


def size_in_bytes(model: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in model.state_dict(keep_vars=True).values())


def norms_in(model: nn.Module) -> list[str]:
    kinds = nn.modules.batchnorm._NormBase, nn.GroupNorm
    return [name for name, module in model.named_modules() if isinstance(module, kinds)
            and not name.startswith('backbone')]  # fmt: skip


def test_a_segmentor_predicts_the_same_labels():
    pytest.importorskip('mmseg', reason='mmseg: not installed')
    model = built(UPERNET)
    expected = predictions(model, 'mmseg')
    before, norms = size_in_bytes(model), norms_in(model)
    head_norms = [name for name in norms if not name.startswith('auxiliary_head')]
    assert head_norms
    assert len(head_norms) < len(norms)

    report = fold_model(model, (64, 64))
    found = predictions(model, 'mmseg')
    assert torch.equal(found.pred_sem_seg.data, expected.pred_sem_seg.data)
    assert expected.pred_sem_seg.data.unique().numel() > 3
    torch.testing.assert_close(
        found.seg_logits.data, expected.seg_logits.data, atol=1e-4, rtol=1e-4
    )
    assert norms_in(model) == []
    assert not model.with_auxiliary_head
    assert report.backbone == 'ShiftWiseNet'
    assert len(report.folded) == len(head_norms)
    assert report.dropped == ('auxiliary_head',)
    assert report.kept == {}
    assert (report.bytes_before, report.bytes_after) == (before, size_in_bytes(model))
    assert report.shape == (3, 64, 64)
    assert report.multiply_adds_before == complexity(built(UPERNET), (64, 64)).macs_dense
    assert report.multiply_adds_after == complexity(model, (64, 64)).macs_dense
    # bypassed channels and the middle of the arms cost a little, and nothing is left uncounted
    assert report.multiply_adds_after == pytest.approx(report.multiply_adds_before, rel=0.2)
    text = str(report)
    assert 'dropped: auxiliary_head' in text
    assert 'giga-multiply-adds at 3 x 64 x 64' in text

    state = copy.deepcopy(model.state_dict())
    again = fold_model(model)
    assert (again.folded, again.dropped, again.bytes_before) == ((), (), report.bytes_after)
    assert again.bytes_after == again.bytes_before
    assert again.multiply_adds_before is None
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())


def assert_same_boxes(found: BaseDataElement, expected: BaseDataElement) -> None:
    assert len(found) == len(expected) > 0
    assert torch.equal(found.labels, expected.labels)
    torch.testing.assert_close(found.scores, expected.scores, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.bboxes, expected.bboxes, atol=1e-2, rtol=1e-4)


def test_a_detector_with_norms_in_its_pyramid():
    pytest.importorskip('mmdet', reason='mmdet: not installed')
    model = built(RETINANET, {'model.neck.norm_cfg.type': 'BN'})
    expected = predictions(model, 'mmdet').pred_instances
    norms = norms_in(model)
    assert norms
    report = fold_model(model)
    found = predictions(model, 'mmdet').pred_instances
    assert_same_boxes(found, expected)
    assert len(report.folded) == len(norms)
    assert all(name.startswith('neck.') for name in report.folded)
    assert (report.dropped, report.kept, norms_in(model)) == ((), {}, [])


def test_norms_of_two_stage_heads_that_stay_are_named():
    pytest.importorskip('mmdet', reason='mmdet: not installed')
    options = {
        'model.neck.in_channels': [8, 8, 8, 8],
        'model.neck.norm_cfg.type': 'BN',
        'model.roi_head.mask_head.norm_cfg': dict(type='GN', num_groups=4),
        'model.test_cfg.rcnn.score_thr': 0.0,
    }
    model = built(MASK_RCNN, options, backbone=TINY | dict(norm_cfg=dict(type='BN')))
    expected = predictions(model, 'mmdet').pred_instances
    report = fold_model(model)
    found = predictions(model, 'mmdet').pred_instances
    assert_same_boxes(found, expected)
    assert (found.masks != expected.masks).float().mean() < 1e-3
    assert report.kept == {
        f'roi_head.mask_head.convs.{index}.gn': 'GroupNorm, its statistics are those of each image'
        for index in range(2)
    }
    assert 'stays: roi_head.mask_head.convs.0.gn (GroupNorm' in str(report)


def average_precisions(samples: list[BaseDataElement], truth: list[BaseDataElement]) -> dict:
    """COCO's figures of predictions, where others of the same images are the truth."""
    from mmdet.evaluation import CocoMetric
    from mmdet.structures.mask import encode_mask_results

    metric = CocoMetric(metric=['bbox', 'segm'])
    metric.dataset_meta = dict(classes=[str(label) for label in range(10)])
    for sample, true in zip(samples, truth, strict=True):
        known = true.pred_instances
        masks = encode_mask_results(known.masks)
        instances = [
            dict(bbox=box, bbox_label=label, ignore_flag=0, mask=mask)
            for box, label, mask in zip(
                known.bboxes.tolist(), known.labels.tolist(), masks, strict=True
            )
        ]
        metric.process({}, [sample.to_dict() | dict(instances=instances)])
    return metric.evaluate(len(samples))


def test_average_precision_stays(monkeypatch):
    pytest.importorskip('mmdet', reason='mmdet: not installed')
    module = importlib.import_module('mmdet.evaluation.metrics.coco_metric')
    monkeypatch.setattr(module, 'round', lambda value, digits: value, raising=False)
    options = {'model.neck.in_channels': [8, 8, 8, 8], 'model.test_cfg.rcnn.score_thr': 0.0}
    model = built(MASK_RCNN, options, backbone=TINY | dict(norm_cfg=dict(type='BN')))
    truth = [predictions(model, 'mmdet', seed) for seed in range(2)]
    expected = average_precisions(truth, truth)
    fold_model(model)
    found = average_precisions([predictions(model, 'mmdet', s) for s in range(2)], truth)
    # a box of the truth that has an empty mask is found by nobody
    assert min(expected['coco/bbox_mAP'], expected['coco/segm_mAP']) > 0.8
    assert found == pytest.approx(expected, abs=5e-5)


class Head(BaseModule):
    """Convolutions and norms of every kind that a head may have."""

    def __init__(self) -> None:
        super().__init__()
        bn = dict(type='BN')
        self.plain = ConvModule(4, 4, 3, padding=1, norm_cfg=bn, bias=True)
        self.row = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, affine=False), nn.ReLU())
        self.efficient = ConvModule(4, 4, 1, norm_cfg=bn, act_cfg=None)
        self.efficient.turn_on_efficient_conv_bn_eval()
        self.before = ConvModule(4, 4, 1, norm_cfg=bn, order=('norm', 'conv', 'act'))
        self.between = ConvModule(4, 4, 1, norm_cfg=bn, order=('conv', 'act', 'norm'))
        self.first = ConvModule(4, 4, 1, norm_cfg=bn)  # one convolution, a norm for each level
        self.second = ConvModule(4, 4, 1, norm_cfg=bn)
        self.second.conv = self.first.conv
        self.deconv = ConvModule(4, 4, 1, norm_cfg=bn, conv_cfg=dict(type='deconv'))
        self.spectral = ConvModule(4, 4, 1, norm_cfg=bn, with_spectral_norm=True)
        self.unkept = nn.Sequential(
            nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)
        )
        self.loose_conv = nn.Conv2d(4, 4, 1)
        self.loose_norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.efficient(self.row(self.plain(x)))
        x = self.between(self.before(x))
        x = self.second(self.first(x))
        x = self.unkept(self.spectral(self.deconv(x)))
        return self.loose_norm(x) + self.loose_conv(x)  # the norm is not behind the convolution


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = Head()
        self.auxiliary_head = nn.Conv2d(4, 4, 1)  # of no segmentor of mmseg

    def forward(self, x: Tensor) -> Tensor:
        return self.auxiliary_head(self.head(x))


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_only_what_is_surely_behind_a_plain_convolution_is_folded(dtype):
    torch.manual_seed(0)
    model = Model().to(dtype)
    enliven(model)
    model.eval()
    x = torch.randn(2, 4, 9, 9, dtype=dtype)
    with torch.no_grad():
        expected = model(x)
        report = fold_model(model)
        found = model(x)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)
    assert report.folded == ('head.plain.conv', 'head.row.0', 'head.efficient.conv')
    several = 'BatchNorm2d, it or its convolution is used in several places'
    apart = 'BatchNorm2d, it is not right behind a convolution'
    assert report.kept == {
        'auxiliary_head': 'a segmentor that predicts in its own way may ask it',
        'head.before.bn': apart,
        'head.between.bn': apart,
        'head.first.bn': several,
        'head.second.bn': several,
        'head.deconv.bn': 'BatchNorm2d, it is behind a ConvTranspose2d',
        'head.spectral.bn': 'BatchNorm2d, a hook watches it or its convolution',
        'head.unkept.1': 'BatchNorm2d, it has no running statistics',
        'head.loose_norm': apart,
    }
    assert (report.backbone, report.dropped) == (None, ())


def test_pruned_weights_and_their_masks_stay():
    model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))
    with torch.no_grad():
        model[0].weight[:2] = 0
    attach_masks(model, r'0\.weight')
    model[0].mask[:2] = False
    mask = model[0].mask.clone()
    assert fold_model(model).folded == ('0',)
    assert torch.equal(model[0].mask, mask)
    assert torch.equal(model[0].weight != 0, mask.expand_as(model[0].weight))


def test_a_backbone_that_cannot_be_folded_leaves_everything():
    class Refusing(nn.Module):
        def switch_to_deploy(self) -> None:
            raise TypeError('stages.0.0.norm is a GroupNorm')

    model = nn.Module()
    model.backbone, model.neck = Refusing(), nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))
    with pytest.raises(UsageError, match=r'the backbone cannot be folded: stages\.0\.0\.norm is'):
        fold_model(model)
    assert isinstance(model.neck[1], nn.BatchNorm2d)


def test_a_saved_folded_model_comes_back(tmp_path):
    pytest.importorskip('mmseg', reason='mmseg: not installed')
    model = built(UPERNET)
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, tmp_path / 'whole.pth')
    folded = init_model(UPERNET, tmp_path / 'whole.pth', deploy=True)
    assert norms_in(folded) == []
    torch.save({'state_dict': folded.state_dict(), 'meta': {}}, tmp_path / 'folded.pth')
    for deploy in (False, True):
        loaded = init_model(UPERNET, tmp_path / 'folded.pth', deploy=deploy)
        state = loaded.state_dict()
        assert state.keys() == folded.state_dict().keys()
        assert all(torch.equal(state[name], value) for name, value in folded.state_dict().items())
    assert isinstance(loaded.backbone, ShiftWiseNet)


def test_a_whole_file_folds_nothing():
    model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))
    take_folded_form(model, model.state_dict())
    assert isinstance(model[1], nn.BatchNorm2d)
    assert take_folded_form(model, {}) is None
    assert isinstance(model[1], nn.BatchNorm2d)
