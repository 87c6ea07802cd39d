"""What the documentation quotes: which command measures it, and where its figures go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

CPU, CUDA = 'cpu', 'cuda'


@dataclass(frozen=True)
class Job:
    """Something that is measured by itself.

    In commands, ``{out}`` is the folder of the job, ``{all}`` the folder of all jobs and ``{docs}``
    that of the pages.

    Attributes:
        name: Short name.
        question: What it answers.
        commands: What is run, one after the other: scripts of this project, or targets of make.
        quick: The smallest form of it, to see that it works.
        blocks: Page and name of each block that gets figures.
        pictures: File in the folder of all jobs, and in that of the pages.
        device: What it needs.
    """

    name: str
    question: str
    commands: Sequence[str]
    quick: Sequence[str]
    blocks: Sequence[tuple[str, str]] = ()
    pictures: Sequence[tuple[str, str]] = ()
    device: str = CPU


_DEMO = 'work_dirs/demo'  # where make demo writes, and where other jobs look for trained networks
_SEG, _DET = 'configs/demo/upernet_sw_mini_scenes.py', 'configs/demo/mask_rcnn_sw_mini_scenes.py'
_R18 = {'seg': 'upernet_r18_scenes', 'det': 'mask_rcnn_r18_scenes'}
_TWO_STEPS = (
    '--cfg-options max_iters=2 val_dataloader.dataset.indices=4 test_dataloader.dataset.indices=4'
)
_SMALL_RUN = '--seeds 2 --evaluations 1 --pretrain-epochs 1'


def _demo_report(folder: str, task: str, beside: str = '') -> str:
    call = f'tools/demo_report.py {folder} --task {task} --page {{docs}}/quick_start.md'
    return f'{call} --beside {beside}' if beside else call


def _demo(task: str, target: str) -> Job:
    config, run = {'seg': (_SEG, 'finetune'), 'det': (_DET, 'detection')}[task]
    start = '{all}/demo/pretrained_sparse.pth'
    quick = [
        'tools/make_demo_data.py data/demo',
        f'tools/make_demo_checkpoint.py --out {start} --epochs 1',
        f'tools/train.py {config} --work-dir {{all}}/demo/{run} --pretrained {start} {_TWO_STEPS}',
        _demo_report('{all}/demo', task),
    ]
    return Job(
        target,
        f'How good is the demonstration ({"segmentation" if task == "seg" else "detection"})?',
        [f'make {target}', _demo_report(_DEMO, task)],
        quick,
        [('quick_start.md', target)],
    )


def _transfer(
    name: str,
    question: str,
    words: str,
    quick: str,
    page: str,
    *blocks: str,
    pictures: Sequence[tuple[str, str]] = (),
) -> Job:
    call = f'tools/benchmark_transfer.py --out {{out}} --page {{docs}}/{page}'
    return Job(
        name,
        question,
        [f'{call} {words}'.strip()],
        [f'{call} {words} {_SMALL_RUN} {quick}'],
        [(page, block) for block in blocks],
        pictures,
    )


def _on_gpu(
    name: str,
    question: str,
    call: str,
    whole: str,
    quick: str,
    blocks: Sequence[tuple[str, str]],
) -> Job:
    call = f'{call} --out {{out}} --device cuda'
    return Job(name, question, [f'{call} {whole}'], [f'{call} {quick}'], blocks, device=CUDA)


_OPERATOR_PAGES = '--page {docs}/backends.md {docs}/backend_internals.md {docs}/large_kernels.md'
_OPERATOR_BLOCKS = (
    ('backends.md', 'operators'),
    ('backends.md', 'pruning'),
    ('backend_internals.md', 'operator-layers'),
    ('backend_internals.md', 'operators-all'),
    ('backend_internals.md', 'pruning-all'),
    ('large_kernels.md', 'large-kernels'),
)
_OPERATOR_BLOCKS_GPU = (
    ('backends.md', 'operators-gpu'),
    ('backend_internals.md', 'operator-layers-gpu'),
)

JOBS: Sequence[Job] = (
    _demo('seg', 'demo'),
    _demo('det', 'demo-detection'),
    Job(
        'demo-compare',
        'What does a ResNet-18 reach, trained as the demonstration is?',
        [
            'make demo-compare',
            _demo_report(_DEMO, 'seg', f'{_DEMO}/{_R18["seg"]}'),
            _demo_report(_DEMO, 'det', f'{_DEMO}/{_R18["det"]}'),
        ],
        [
            f'tools/train.py configs/demo/{_R18["seg"]}.py --work-dir {{out}}/r18 {_TWO_STEPS}',
            _demo_report('{all}/demo', 'seg', '{out}/r18'),
            _demo_report('{all}/demo', 'det'),
        ],
        [('quick_start.md', 'demo'), ('quick_start.md', 'demo-detection')],
        [(f'{_DEMO}/demo.png', 'demo.png'), (f'{_DEMO}/demo_detection.png', 'demo_detection.png')],
    ),
    Job(
        'model-zoo',
        'How many parameters and multiply-adds has each config?',
        ['tools/make_model_zoo.py --out {docs}/model_zoo.md'],
        ['tools/make_model_zoo.py --out {docs}/model_zoo.md'],
    ),
    Job(
        'sparsity-analysis',
        'Where are the zeros of the checkpoint of the demonstration?',
        [f'tools/analyze_sparsity.py {_DEMO}/pretrained_sparse.pth --out {{out}}'],
        ['tools/analyze_sparsity.py {all}/demo/pretrained_sparse.pth --out {out}'],
        pictures=[('{out}/sparsity.svg', 'sparsity_analysis.svg')],
    ),
    Job(
        'regimes',
        'Do zeros survive every way to train?',
        ['tools/benchmark_regimes.py --out {out} --page {docs}/sparse_regimes.md'],
        [
            'tools/benchmark_regimes.py --out {out} --page {docs}/sparse_regimes.md '
            '--only shiftwise/AdamW/plain'
        ],
        [('sparse_regimes.md', '')],
    ),
    Job(
        'export',
        'What does an exported file change and cost?',
        ['tools/benchmark_export.py --out {out} --threads 1 --page {docs}/exported_parity.md'],
        [
            'tools/benchmark_export.py --out {out} --threads 1 --page {docs}/exported_parity.md '
            f"--quick --only 'onnx float32' --model {_SEG} {{all}}/demo/finetune/iter_2.pth"
        ],
        [('exported_parity.md', '')],
    ),
    Job(
        'operators',
        'How fast is the operator, beside other ways to shift and plain convolutions?',
        [f'tools/benchmark_ops.py --out {{out}} {_OPERATOR_PAGES}'],
        [
            f'tools/benchmark_ops.py --out {{out}} {_OPERATOR_PAGES} --quick --crop 64 '
            "--only 'mmsw cpp' slices --sparsity 0 0.7"
        ],
        _OPERATOR_BLOCKS,
        [('{out}/benchmark.svg', 'benchmark_ops.svg')],
    ),
    Job(
        'networks',
        'How fast is a whole backbone, beside ConvNeXt, Swin and others?',
        ['tools/benchmark_model.py --out {out} --quick --mode eval --page {docs}/speed.md'],
        [
            'tools/benchmark_model.py --out {out} --quick --crop 64 --mode eval '
            '--page {docs}/speed.md --only ConvNeXt'
        ],
        [('speed.md', 'networks')],
    ),
    Job(
        'training-step',
        'What do time and memory of a training step depend on?',
        [
            "tools/benchmark_model.py --out {out} --quick --batch 1 2 --mode 'training step' "
            '--limit 20 --page {docs}/training.md {docs}/speed.md'
        ],
        [
            "tools/benchmark_model.py --out {out} --quick --crop 64 --mode 'training step' "
            "--only 'SW-T v2' --page {docs}/training.md {docs}/speed.md"
        ],
        [('training.md', 'training-step'), ('speed.md', 'training-step')],
    ),
    Job(
        'sparse-training',
        'Does sparse training cost accuracy?',
        ['tools/benchmark_sparsity.py --out {out} --page {docs}/sparse_training.md'],
        [
            'tools/benchmark_sparsity.py --out {out} --page {docs}/sparse_training.md --seeds 2 '
            '--max-iters 4 --methods dense,filter --sparsity 0.5 --jobs 1 --data data/demo'
        ],
        [('sparse_training.md', 'sparse-training')],
        [('{out}/sparse_training.png', 'sparse_training.png')],
    ),
    _transfer(
        'transfer',
        'Does it matter for fine-tuning where a network starts?',
        '',
        '--budget 2 --starts dense,sparse',
        'transfer.md',
        'segmentation',
        'detection',
        pictures=[('{out}/transfer.svg', 'transfer.svg')],
    ),
    _transfer(
        'large-kernels-training',
        'What do SLaK, equ-SLaK and a ResNet of equal cost learn from nothing?',
        '--compare large-kernels',
        '--budget 2',
        'transfer.md',
        'large-kernels',
    ),
    _transfer(
        'distillation',
        'Does a dense teacher help a sparse network?',
        '--compare distillation',
        '--budget seg=2 --budget det=2',
        'distillation.md',
        '',
    ),
    _transfer(
        'ablations',
        'What is each option of the operator worth?',
        '--compare ablations',
        '--budget 2',
        'ablations.md',
        'ablations',
    ),
    _on_gpu(
        'operators-gpu',
        'How fast is the operator on a GPU?',
        'tools/benchmark_ops.py --quick --page {docs}/backends.md {docs}/backend_internals.md',
        '--batch 1 16 --sparsity 0 0.7',
        '--crop 64 --sparsity 0 0.7',
        _OPERATOR_BLOCKS_GPU,
    ),
    _on_gpu(
        'large-kernels-gpu',
        'How fast are large kernels on a GPU?',
        "tools/benchmark_ops.py --network-version v2 --only 'SLaK pair' depthwise --sparsity "
        '--page {docs}/large_kernels.md',
        '--crop 512 --batch 1 16',
        '--quick --crop 64',
        [('large_kernels.md', 'large-kernels-gpu')],
    ),
    _on_gpu(
        'networks-gpu',
        'How fast is a whole backbone on a GPU?',
        'tools/benchmark_model.py --quick --tf32 --mode eval --page {docs}/speed.md',
        '--batch 1 8 --dtype float32 float16',
        "--crop 64 --only 'SW-T v2'",
        [('speed.md', 'networks-gpu')],
    ),
    _on_gpu(
        'training-step-gpu',
        'What does a training step take on a GPU?',
        "tools/benchmark_model.py --quick --tf32 --mode 'training step' --page {docs}/speed.md",
        "--batch 8 --only 'SW-T v2' SLaK ConvNeXt",
        "--crop 64 --only 'SW-T v2'",
        [('speed.md', 'training-step-gpu')],
    ),
    _on_gpu(
        'slak-gpu',
        'How fast are SLaK and equ-SLaK on a GPU?',
        'tools/benchmark_model.py --tf32 --only SLaK --page {docs}/slak.md',
        '--crop 512 --batch 1 8',
        '--quick --crop 64',
        [('slak.md', 'slak-gpu')],
    ),
    Job(
        'photographs',
        'Does a sparse shift-wise network pay on real images?',
        [
            'tools/benchmark_photographs.py --out {out} --page {docs}/real_images.md '
            '--readme {docs}/../README.md'
        ],
        ['tools/benchmark_photographs.py --out {out} --page {docs}/real_images.md --quick'],
        [('real_images.md', ''), ('real_images.md', 'full-size')],
    ),
    Job(
        'photographs-gpu',
        'What do networks reach on real images at full size?',
        [
            'tools/benchmark_photographs.py --full --parts long --jobs 7 --out {out} '
            '--page {docs}/real_images.md'
        ],
        [
            'tools/benchmark_photographs.py --quick --parts long --out {out} '
            '--page {docs}/real_images.md'
        ],
        [('real_images.md', 'full-size-gpu')],
        device=CUDA,
    ),
)
