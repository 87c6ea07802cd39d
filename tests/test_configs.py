"""Config files: they parse, build, say what the recipe says, and can be pointed at other data."""

import copy
import functools
from pathlib import Path

import pytest
import torch
import yaml
from config_helpers import RECIPE, ROOT, build_model, count_parameters, has_sync_bn, own_options
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.structures import PixelData

from mmsw.apis import UsageError, check_data, load_config, register_toolbox, set_data_root
from mmsw.apis.complexity_report import count_complexity
from mmsw.apis.data import iter_datasets
from mmsw.apis.unpublished import unpublished

CONFIGS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / 'configs').rglob('*.py')
    # tests/test_pretrain*.py, tests/test_ablation_configs.py and tests/own_data are for the others
    if not {'_base_', 'ablation', 'pretrain', 'recipes'} & set(path.relative_to(ROOT).parts)
    and not path.stem.endswith(('_r18', '_r50', '_swin_t', '_convnext_t'))
)
MULTI_SCALE = ROOT / 'configs' / 'upernet_sw_t_ade20k_ms.py'
METAFILE = yaml.safe_load((ROOT / 'configs' / 'metafile.yml').read_text())
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


@functools.cache
def full_size(path: str) -> tuple[int, bool]:
    """Parameters of the model of a config, and whether it has SyncBN; built once for all tests."""
    # Random numbers are not needed, but MiT reads the values of a tensor while it is built.
    with torch.device('cpu' if 'mit' in Path(path).stem.split('_') else 'meta'):
        model = build_model(load_config(ROOT / path, own_options(path)))
    return count_parameters(model), has_sync_bn(model)


def strings(value: object) -> list[str]:
    """All strings in a config, keys left out."""
    if isinstance(value, dict):
        return [text for item in value.values() for text in strings(item)]
    if isinstance(value, (list, tuple)):
        return [text for item in value for text in strings(item)]
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize('path', CONFIGS)
def test_config_parses_and_builds(path: str) -> None:
    cfg = load_config(ROOT / path, own_options(path))
    assert 'mmsw' in cfg.custom_imports.imports
    assert all(cfg[loader].dataset for loader in LOADERS)
    assert full_size(path)[0] > 0


def test_loaders_have_the_names_that_the_toolboxes_look_for() -> None:
    for path in (ROOT / 'configs').rglob('*.py'):
        assert 'LoadValid' not in path.read_text(), path


def test_config_of_classes_can_be_written_as_text() -> None:
    cfg = load_config(ROOT / 'tests' / 'data' / 'pure_python' / 'fcn_mini_ade20k.py')
    cfg.default_hooks = dict(cfg.default_hooks.items())  # as mmengine and others rebuild parts
    text = Config.fromstring(cfg.pretty_text, '.py')
    assert text.model == cfg.model
    assert text.custom_hooks[1].ema_type == 'mmengine.model.ExponentialMovingAverage'
    assert load_config(text).to_dict() == cfg.to_dict()


@pytest.mark.parametrize('path', [path for path in CONFIGS if 'upernet' in path])
def test_reduced_model_trains_and_predicts(path: str) -> None:
    cfg = load_config(ROOT / path)
    if cfg.model.backbone.type in ('ShiftWiseNet', 'SLaK'):
        dims = [8, 8, 8, 8]
        arch = dict(_delete_=True, depths=[1, 1, 1, 1], dims=dims)
        cfg.merge_from_dict({'model.backbone': dict(arch=arch, big_kernels=(9, 7, 7, 5))})
        if cfg.model.backbone.type == 'SLaK':
            cfg.model.backbone.width_factor = 1.0
    else:  # a network to compare with
        dims = cfg.model.decode_head.in_channels
    cfg.model.data_preprocessor.size = (64, 64)
    cfg.model.decode_head.update(in_channels=dims, channels=8)
    if cfg.model.auxiliary_head:
        cfg.model.auxiliary_head.update(in_channels=8, channels=8)
    model = revert_sync_batchnorm(build_model(cfg))

    from mmseg.structures import SegDataSample

    labels = torch.randint(0, cfg.model.decode_head.num_classes, (1, 48, 64))
    shape = dict(img_shape=(48, 64), ori_shape=(48, 64))
    sample = SegDataSample(gt_sem_seg=PixelData(data=labels), metainfo=shape)
    image = torch.randint(0, 256, (3, 48, 64), dtype=torch.uint8)
    batch = dict(inputs=[image, image], data_samples=[sample, copy.deepcopy(sample)])
    data = model.data_preprocessor(batch, training=True)
    assert data['inputs'].shape == (2, 3, 64, 64)
    losses = model(**data, mode='loss')
    loss = sum(value for name, value in losses.items() if 'loss' in name)
    loss.backward()
    assert torch.isfinite(loss)
    assert [name for name, param in model.named_parameters() if param.grad is None] == []

    with torch.no_grad():
        logits = model.eval()(**data, mode='tensor')
        (result,) = model.test_step(dict(inputs=[image], data_samples=[sample]))
    assert logits.shape[:2] == (2, cfg.model.decode_head.num_classes)
    assert result.pred_sem_seg.data.shape == (1, 48, 64)


def test_recipe() -> None:
    cfg = load_config(RECIPE)
    assert cfg.default_scope == 'mmseg'
    backbone = cfg.model.backbone
    assert (backbone.arch, backbone.version) == ('tiny', 'v2')
    assert (backbone.num_paths, backbone.num_reps, backbone.ghost_ratio) == (2, 4, 0.23)
    assert tuple(backbone.big_kernels) == (51, 49, 47, 13)
    assert (backbone.drop_path_rate, backbone.layer_scale_init_value) == (0.4, 1.0)
    assert cfg.model.decode_head.channels == 512
    head = cfg.model.auxiliary_head
    assert (head.channels, head.in_index, head.loss_decode.loss_weight) == (256, 2, 0.4)
    assert cfg.model.test_cfg == dict(mode='slide', crop_size=(512, 512), stride=(341, 341))

    assert cfg.optim_wrapper.type == 'OptimWrapper'  # mixed precision is the user's choice
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('AdamW', 1e-4, 0.05)
    assert tuple(optimizer.betas) == (0.9, 0.999)
    assert cfg.optim_wrapper.paramwise_cfg.decay_rate == 1
    warm_up, poly = cfg.param_scheduler
    assert (warm_up.start_factor, warm_up.end, warm_up.by_epoch) == (1e-6, 1500, False)
    assert (poly.power, poly.begin, poly.end) == (1.0, 1500, 160000)
    assert cfg.train_cfg.max_iters == 160000
    assert cfg.train_dataloader.batch_size * 4 == cfg.auto_scale_lr.base_batch_size == 16

    crops = [t.crop_size for t in cfg.train_dataloader.dataset.pipeline if t.type == 'RandomCrop']
    assert crops == [(512, 512)] == [cfg.model.data_preprocessor['size']]
    assert cfg.default_hooks.checkpoint.save_best == 'mIoU'
    assert [hook.type for hook in cfg.custom_hooks] == ['SparsityReportHook']


@pytest.mark.parametrize(
    ('config', 'parameters'),
    [
        ('configs/upernet_sw_t_ade20k.py', 62_514_776),  # as published
        ('configs/upernet_sw_s_ade20k.py', 88_966_400),
        ('configs/upernet_sw_v1_t_ade20k.py', 61_884_572),
        ('configs/upernet_slak_t_ade20k.py', 84_025_986),
        ('configs/cascade_mask_rcnn_slak_t_coco.py', 107_925_768),
        # 86.89 M and 110.48 M are published: docs/complexity.md says where the rest comes from
        ('configs/cascade_mask_rcnn_sw_t_coco.py', 89_198_046),
        ('configs/cascade_mask_rcnn_sw_s_coco.py', 114_654_342),
    ],
)
def test_number_of_parameters(config: str, parameters: int) -> None:
    assert full_size(config) == (parameters, True)


def test_multi_scale_variant_differs_in_the_test_only() -> None:
    base, variant = load_config(RECIPE), load_config(MULTI_SCALE)
    assert variant.model.test_cfg == dict(mode='whole')
    augmentations = variant.tta_pipeline[1].transforms
    assert [t.scale[1] / 512 for t in augmentations[0]] == [0.5, 0.75, 1.0, 1.25, 1.5, 1.75]
    assert [t.scale[0] / t.scale[1] for t in augmentations[0]] == [4.0] * 6
    assert [t.prob for t in augmentations[1]] == [0.0, 1.0]
    for cfg in (base, variant):
        cfg.model.pop('test_cfg')
    assert variant.pop('use_tta') is True
    assert variant.to_dict() == base.to_dict()


def test_metafile_describes_what_is_there() -> None:
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    assert index['Import'] == ['configs/metafile.yml']
    collections = {item['Name'] for item in METAFILE['Collections']}
    listed = [model['Config'] for model in METAFILE['Models']]
    left_out = [  # of no toolbox, or of other networks; to compare with
        'configs/bccd/retinanet_r18_narrow_bccd.py',
        'configs/camvid/convnext_mini_camvid.py',
        'configs/camvid/mit_mini_camvid.py',
        'configs/camvid/r18_narrow_camvid.py',
        'configs/demo/mask_rcnn_r18_scenes.py',
        'configs/demo/pretrain_sw_mini_scenes.py',
        'configs/demo/upernet_r18_narrow_scenes.py',
        'configs/demo/upernet_r18_scenes.py',
    ]
    assert sorted([*listed, *left_out]) == CONFIGS
    for model in METAFILE['Models']:
        assert (ROOT / model['Config']).stem == model['Name']
        assert model['In Collection'] in collections
        assert 'Weights' not in model
        small = model['Metadata']['Training Data'] == 'Demonstration scenes'
        assert small or 'Results' not in model  # nothing else was trained to the end
        assert model['Metadata']['Parameters'] == full_size(model['Config'])[0]


def counted_models() -> list:
    """All models of the metafile; the small ones alone take a second and are not slow."""
    quick = ('own_segmentation_sw_mini', 'own_retinanet_sw_mini')
    slow = [pytest.mark.slow, pytest.mark.ci]
    return [
        pytest.param(model, id=model['Name'], marks=[] if model['Name'] in quick else slow)
        for model in METAFILE['Models']
    ]


@pytest.mark.parametrize('model', counted_models())
def test_metafile_says_what_is_counted_and_where_to_start(model: dict) -> None:
    facts, path = model['Metadata'], model['Config']
    cfg = load_config(ROOT / path, own_options(path))
    if facts['Start'] not in ('scratch', 'random weights', 'demonstration'):
        advice = unpublished(cfg, 'absent.pth')
        published = facts['Start'] in ('published', 'published SLaK')
        assert published if advice is None else facts['Start'] in advice
    elif facts['Start'] == 'demonstration':
        assert cfg.model.backbone.init_cfg.checkpoint == 'work_dirs/demo/pretrained_sparse.pth'
    else:
        start = cfg.model.backbone.get('init_cfg') or {}
        assert start.get('type') != 'Pretrained'
    size = [int(number) for number in facts['Input Size'].split('x')]
    if facts['Training Data'] == 'Your own':
        own = Config.fromfile(ROOT / path).own_data
        assert size == list(own.crop_size if own.task == 'segmentation' else own.image_size)
    result = count_complexity(ROOT / path, size, cfg_options=own_options(path))
    assert result.parameters == facts['Parameters']
    assert round(result.macs_dense / 1e9, 3) == facts['Multiply-adds (GMAC)']


def test_one_network_is_counted_once() -> None:
    """What differs in the test or in training alone costs the same."""
    facts = {model['Name']: model['Metadata'] for model in METAFILE['Models']}
    for name in ('upernet_sw_t_ade20k_ms', 'upernet_sw_t_ade20k_sparsify'):
        for key in ('Parameters', 'Multiply-adds (GMAC)', 'Input Size'):
            assert facts[name][key] == facts['upernet_sw_t_ade20k'][key]


@pytest.mark.parametrize('path', CONFIGS)
@pytest.mark.parametrize('as_option', [False, True])
def test_data_root_reaches_everything(path: str, as_option: bool) -> None:
    def used(cfg: Config) -> list[str]:
        holders = [cfg[key] for key in cfg if key.endswith(('_dataloader', '_evaluator'))]
        return [text.rstrip('/') for text in strings(holders)]

    own, new = own_options(path), {'data_root': '/new/place'}
    before = load_config(ROOT / path, own)
    options, moved = (own | new, {}) if as_option else (own, new)
    cfg = load_config(ROOT / path, options, **moved)
    root = before.data_root.rstrip('/')
    expected = [text.replace(root, '/new/place') for text in used(before)]
    assert used(cfg) == expected != used(before)
    for loader in LOADERS:
        roots = {dataset.data_root for dataset in iter_datasets(cfg[loader].dataset)}
        assert roots == {'/new/place'}


def test_data_root_moves_wrapped_data_sets_and_annotation_files() -> None:
    inner = dict(type='CocoDataset', data_root='data/coco/', ann_file='annotations/train.json')
    other = dict(type='CocoDataset', data_root='data/coconut/', ann_file='a.json')
    cfg = Config(
        dict(
            data_root='data/coco/',
            train_dataloader=dict(
                dataset=dict(
                    type='RepeatDataset',
                    dataset=dict(type='ConcatDataset', datasets=[inner, other]),
                )
            ),
            val_evaluator=[
                dict(type='CocoMetric', ann_file='data/coco/annotations/val.json', metric='bbox')
            ],
            work_dir='data/coco/runs',
        )
    )
    set_data_root(cfg, '/new')
    moved, kept = cfg.train_dataloader.dataset.dataset.datasets
    assert (moved.data_root, moved.ann_file) == ('/new', 'annotations/train.json')
    assert kept.data_root == 'data/coconut/'
    assert cfg.val_evaluator[0].ann_file == '/new/annotations/val.json'
    assert cfg.val_evaluator[0].metric == 'bbox'
    assert (cfg.data_root, cfg.work_dir) == ('/new', 'data/coco/runs')


def test_data_root_is_found_without_a_variable_unless_it_is_unclear() -> None:
    loaders = {loader: dict(dataset=dict(type='A', data_root='old')) for loader in LOADERS}
    cfg = Config(copy.deepcopy(loaders))
    set_data_root(cfg, 'new')
    assert {cfg[loader].dataset.data_root for loader in LOADERS} == {'new'}
    loaders['val_dataloader']['dataset']['data_root'] = 'elsewhere'
    with pytest.raises(UsageError, match=r"\['elsewhere', 'old'\].*--cfg-options"):
        set_data_root(Config(loaders), 'new')


def test_other_options_win_over_the_data_root() -> None:
    options = {'data_root': 'new', 'val_dataloader.dataset.data_root': 'mine'}
    cfg = load_config(RECIPE, options)
    assert cfg.train_dataloader.dataset.data_root == 'new'
    assert cfg.val_dataloader.dataset.data_root == 'mine'
    assert 'data_root' in options


def test_missing_data_are_named_once(ade_layout: Path) -> None:
    check_data(load_config(RECIPE, data_root=ade_layout))
    (ade_layout / 'annotations' / 'validation').rmdir()
    with pytest.raises(UsageError, match=r'ade lacks annotations/validation \('):
        check_data(load_config(RECIPE, data_root=ade_layout))
    check_data(load_config(RECIPE, data_root=ade_layout), ['train_dataloader'])
    with pytest.raises(UsageError, match=r'/absent does not exist; it needs images/training'):
        check_data(load_config(RECIPE, data_root='/absent'))
    check_data(load_config(RECIPE, data_root='s3://bucket/ade'))  # not on this disk


def test_unknown_toolbox_is_refused() -> None:
    cfg = load_config(RECIPE)
    for scope in ('mmaction', None):
        cfg.default_scope = scope
        with pytest.raises(UsageError, match=rf'default_scope={scope!r}.*mmseg.*mmdet'):
            register_toolbox(cfg)


def test_missing_toolbox_names_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise ModuleNotFoundError(f'No module named {name!r}', name=name)

    cfg = load_config(RECIPE)
    monkeypatch.setattr('importlib.import_module', fail)
    with pytest.raises(UsageError, match=r"make setup.*pip install .*'\.\[openmmlab\]'"):
        register_toolbox(cfg)


def test_inherited_toolbox_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('mmengine.config.config.is_installed', lambda package: False)
    with pytest.raises(
        UsageError, match=r"mmdet is not installed.*pip install .*'\.\[openmmlab\]'"
    ):
        load_config(ROOT / 'configs/cascade_mask_rcnn_sw_t_coco.py')


def test_options_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match='config options'):
        load_config(RECIPE, {'param_scheduler.7.end': 3})
