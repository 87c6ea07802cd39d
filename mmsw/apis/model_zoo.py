"""The page of the model zoo: every config with what it costs and scores, beside its neighbours."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from mmsw.config_package import FOLDER
from mmsw.errors import UsageError
from mmsw.whole_file import write_text

_HEADINGS = {  # by training data
    'ADE20K': 'Segmentation on ADE20K',
    'COCO 2017': 'Detection on COCO',
    'CamVid': 'Segmentation on CamVid',
    'BCCD': 'Detection on BCCD',
    'Your own': 'Your own data',
    'Demonstration scenes': 'Demonstration',
}
_NOTES = {
    'ADE20K': 'Counted at 512 x 2048, the size of the published figures.',
    'COCO 2017': (
        'Counted at 1280 x 800, with 1000 boxes and 100 masks for the RoI heads. The figures that\n'
        'the authors give for Cascade Mask R-CNN are not those of the config that they published.\n'
        'This is our inference, see [Complexity](complexity.md).'
    ),
    'CamVid': (
        'Small networks of about equal multiply-adds, from random values, for a CPU. The folder\n'
        'has three more to compare with, see [Real data to try](real_data.md).'
    ),
    'BCCD': (
        'A small detector from random values, for a CPU. The folder has a ResNet-18 to compare\n'
        'with, see [Real data to try](real_data.md).'
    ),
    'Your own': (
        'Counted for two classes, at the size of the crop or image that the config sets, with the\n'
        'same numbers of boxes and masks.'
    ),
    'Demonstration scenes': (
        'Trained in minutes on two CPU cores, and tested on 60 held-out scenes of 160 x 160.\n'
        'Rounding alone moves mIoU by about a point. The README has the runs on other machines.'
    ),
}
_HEAD = """# Model zoo

<!-- Written by tools/make_model_zoo.py from configs/metafile.yml and configs/published.yml. -->

**There are no fine-tuned weights, and nothing was trained to the end on ADE20K, COCO or
ImageNet.** "Published" marks figures of others. Where "ours" says "not trained here", this
project has no score. [Recipes](recipes.md) has the commands.
"""
_HEADS = (
    *('config', 'backbone', 'schedule', 'parameters', 'GMAC', 'published by the authors'),
    *('ours', 'starts from'),
)
_NEIGHBOURS = """## Neighbours, as published

These figures are from the README of each project. **None was measured here.** ADE20K: UPerNet,
mIoU at a single scale, and at several scales where it is published. COCO: 36 epochs, box AP and
mask AP. All in per cent. The repository of the shift-wise network has no scores on ADE20K and
COCO.
"""
_COUNTS = """## What the counts mean

- Parameters and GMAC (10^9 multiply-adds) are counted by this project, for one forward pass of
  one image without pruning. `tests/test_configs.py` counts them again.
- "G" in the published column is the count of the tool that the authors used, which follows
  another rule. [Complexity](complexity.md) has both rules, and how one leads to the other.

Count any config of mmsegmentation or mmdetection yourself:

```bash
python tools/get_flops.py configs/demo/upernet_sw_mini_scenes.py --shape 160 160
```

`mim search mmshiftwise` prints the same facts, where openmim is installed and mmsw is installed
without `-e`. This finds small networks, largest first:
`mim search mmshiftwise --condition 'parameters<2000000' --field multiply-adds --sort parameters`.
`mim download` finds nothing: there are no weights.
"""


def model_zoo_page(folder: Path = FOLDER) -> str:
    """The page as Markdown.

    Args:
        folder: Holds ``metafile.yml`` and ``published.yml``.

    Returns:
        The whole text of ``docs/model_zoo.md``.

    Raises:
        UsageError: If one of the files is not there, or says less or other things than it must.
    """
    rows_of = dict.fromkeys(_HEADINGS, ())
    for data, row in _read(folder / 'metafile.yml', _model, 'Models'):
        rows_of[data] += (row,)
    parts = [
        f'## {_HEADINGS[data]}\n\n{_NOTES[data]}\n\n{_table(_HEADS, rows)}\n'
        for data, rows in rows_of.items()
    ]
    rows = _read(folder / 'published.yml', _neighbour)
    heads = ('network', 'ImageNet-1k top-1', 'ADE20K', 'COCO', 'detector', 'source')
    parts = [_HEAD, *parts, f'{_NEIGHBOURS}\n{_table(heads, rows)}\n', _COUNTS]
    return '\n'.join(parts)


def make_model_zoo(out: str, check: bool = False) -> int:
    """Write the page, or compare it with the one that is there.

    Args:
        out: The page; replaced if it exists.
        check: Write nothing.

    Returns:
        Exit code: 1 if the page differs and ``check`` is set, else 0.
    """
    path, text = Path(out), model_zoo_page()
    if not check:
        try:
            write_text(path, text)
        except OSError as error:
            raise UsageError(f'{path} cannot be written: {error}') from error
        print(f'wrote {path}')
    elif not path.is_file() or path.read_text(encoding='utf-8') != text:
        print(f'{path} is not what the metafile says: run tools/make_model_zoo.py --out {path}')
        return 1
    return 0


def _read(path: Path, convert: Callable[[dict[str, Any]], Any], key: str | None = None) -> list:
    """Each entry of the list that the file is, or that it has under the key, converted."""
    if not path.is_file():
        raise UsageError(f'{path} does not exist; it belongs to the configs of mmsw')
    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f'{path} cannot be read: {" ".join(str(error).split())}') from error
    entries = content.get(key) if key and isinstance(content, dict) else content
    if not isinstance(entries, list):
        raise UsageError(f'{path} must hold a list{f" under {key}" if key else ""}')
    found = []
    for number, entry in enumerate(entries, 1):
        try:
            found.append(convert(entry))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            name = entry.get('Name', entry.get('Network')) if isinstance(entry, dict) else None
            raise UsageError(
                f'{path}: {name or f"entry {number}"} misses something or has another form than '
                f'the others: {type(error).__name__}: {error}'
            ) from error
    return found


def _model(model: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    """What it was trained on, and its row."""
    data = model['Metadata']['Training Data']
    if data not in _HEADINGS:
        raise ValueError(f'Training Data {data!r}, expected one of {", ".join(_HEADINGS)}')
    return data, _row(model)


def _row(model: dict[str, Any]) -> tuple[str, ...]:
    facts = model['Metadata']
    backbone = facts['Architecture'][0].removeprefix('ShiftWiseNet ')
    size = facts['Input Size'].replace('x', ' x ')
    alone = facts['Training Data'] not in ('ADE20K', 'COCO 2017')  # no size is that of all rows
    return (
        f'`{model["Config"].removeprefix("configs/")}`',
        backbone,
        _schedule(facts),
        f'{facts["Parameters"]:,}',
        f'{facts["Multiply-adds (GMAC)"]:.3f}' + f' at {size}' * alone,
        _published(facts),
        _ours(model),
        _start(facts['Start']),
    )


def _schedule(facts: dict[str, Any]) -> str:
    if 'Epochs' in facts:
        return f'{facts["Epochs"]} epochs'
    return f'{facts["Iterations"]:,} iterations' if 'Iterations' in facts else 'by the data'


def _published(facts: dict[str, Any]) -> str:
    texts = {
        'Published Parameters (M)': '{} M',
        'Published Count (G)': '{} G',
        'Published ImageNet Top-1 (%)': 'backbone {}% top-1',
    }
    return ', '.join(text.format(facts[key]) for key, text in texts.items() if key in facts)


def _ours(model: dict[str, Any]) -> str:
    if 'Results' not in model:
        known = {
            'Your own': 'yours',
            'Demonstration scenes': 'not measured',
            'CamVid': '[what to expect](real_data.md#what-to-expect)',
            'BCCD': '[what to expect](real_data.md#what-to-expect)',
        }
        return known.get(model['Metadata']['Training Data'], 'not trained here')
    scores = [
        f'{name.removesuffix(" (%)")} {value}%'
        for result in model['Results']
        for name, value in result['Metrics'].items()
    ]
    return f'{", ".join(scores)} (`{model["Metadata"]["Command"]}`)'


def _start(start: str) -> str:
    known = {
        'published': 'the [published checkpoint](recipes.md#the-published-checkpoint)',
        'demonstration': 'the checkpoint that `make demo` trains',
        'published SLaK': 'the published checkpoint of [SLaK](slak.md)',
        'random weights': 'random weights',
        'scratch': 'scratch, or the checkpoint that `make demo` trains',
    }
    return known.get(start) or f'nobody published it; `{start}` trains it'


def _neighbour(row: dict[str, Any]) -> tuple[str, ...]:
    detector, *scores = row.get('COCO', [''])
    return (
        row['Network'],
        str(row['Top-1']),
        ' / '.join(map(str, row.get('ADE20K', []))),
        ' / '.join(map(str, scores)),
        detector,
        row['Source'],
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    numbers = ('parameters', 'GMAC', 'ImageNet-1k top-1', 'ADE20K', 'COCO')
    lines = [heads, ['---:' if head in numbers else '---' for head in heads], *rows]
    return '\n'.join(f'| {" | ".join(cells)} |' for cells in lines)
