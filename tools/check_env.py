"""Check whether this Python has what the tools, the demo or the tests of mmsw need.

Needs nothing but the standard library to run.

``tools/setup_env.sh`` asks two more questions, answered by the exit status alone: whether mmsw's
own operators have been built for the torch beside them, and whether a checkout is still installed
under the name that the distribution had before.
"""

import argparse
import importlib
import json
import runpy
import sys
from importlib import metadata, util
from pathlib import Path
from urllib import parse

MIN_PYTHON = (3, 10)
MIN_TORCH = (2, 4)
OPS_UNUSABLE = 3

# import name -> what to pass to pip
STACK_MODULES = {
    'torch': 'torch',
    'numpy': 'numpy',
    'mmengine': 'mmengine',
    'mmcv': 'mmcv',
    'mmdet': 'mmdet',
    'mmseg': 'mmsegmentation',
    'regex': 'regex',
    'ftfy': 'ftfy',
}
DEMO_MODULES = {
    'skimage': 'scikit-image',
    'sklearn': 'scikit-learn',
    'imgviz': 'imgviz',
    'matplotlib': 'matplotlib',
}
EXPORT_MODULES = {name: name for name in ('onnx', 'onnxscript', 'onnxruntime', 'openvino')}
TEST_MODULES = {'pytest': 'pytest', 'xdist': 'pytest-xdist'}
DOCS_MODULES = {
    'material': 'mkdocs-material',
    'mkdocstrings': 'mkdocstrings',
    'griffe': 'griffelib',
    'mkdocs_include_markdown_plugin': 'mkdocs-include-markdown-plugin',
    'nbclient': 'nbclient',
    'nbconvert': 'nbconvert',
    'ipykernel': 'ipykernel',
    'ruff': 'ruff',
}
PURPOSES = {
    'run': STACK_MODULES,
    'demo': {**STACK_MODULES, **DEMO_MODULES},
    'test': {**STACK_MODULES, **DEMO_MODULES, **TEST_MODULES},
    'docs': {
        **STACK_MODULES,
        **DEMO_MODULES,
        **EXPORT_MODULES,
        **TEST_MODULES,
        **DOCS_MODULES,
    },
}
STACK_PACKAGES = ('mmengine', 'mmcv', 'mmdet', 'mmsegmentation')
ONEDL_PACKAGES = ('onedl-mmengine', 'onedl-mmcv', 'onedl-mmdetection', 'onedl-mmsegmentation')


def installed_version(distribution: str) -> 'str | None':
    """Returns the installed version of a distribution, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def find_problems(modules: 'dict[str, str]') -> 'list[str]':
    """Lists what keeps these modules from being used, without importing any of them."""
    problems = []
    for module, package in modules.items():
        if util.find_spec(module) is None:
            problems.append(f'module {module} is missing (package {package})')
    torch_version = installed_version('torch')
    if torch_version and tuple(map(int, torch_version.split('.')[:2])) < MIN_TORCH:
        wanted = '.'.join(map(str, MIN_TORCH))
        problems.append(f'torch {torch_version} is too old, {wanted} or newer is needed')
    mmcv = util.find_spec('mmcv')
    if mmcv and not any(
        list(Path(place).glob('_ext.*')) for place in mmcv.submodule_search_locations or ()
    ):
        problems.append(
            'mmcv has no compiled operators (no mmcv/_ext): install the full mmcv, not mmcv-lite, '
            'with torch already in place and --no-build-isolation'
        )
    official = [name for name in STACK_PACKAGES if installed_version(name)]
    onedl = [name for name in ONEDL_PACKAGES if installed_version(name)]
    if official and onedl:
        problems.append(
            f'packages of both stacks are installed and overwrite each other: '
            f'{", ".join(official)} and {", ".join(onedl)}; start from a new environment'
        )
    return problems


def describe() -> str:
    """Returns one line that names Python, torch, numpy and the stack with their versions."""
    stack = ONEDL_PACKAGES if installed_version('onedl-mmcv') else STACK_PACKAGES
    found = [f'{name} {installed_version(name)}' for name in ('torch', 'numpy', *stack)]
    return ', '.join([f'Python {sys.version.split()[0]}', *found])


def import_all(modules: 'dict[str, str]') -> 'list[str]':
    """Imports every module and lists those that fail, with the reason."""
    problems = []
    for module in modules:
        try:
            importlib.import_module(module)
        except (
            Exception,
            SystemExit,
        ) as error:  # whatever a broken installation raises is the finding
            problems.append(f'import {module} fails: {type(error).__name__}: {error}')
    return problems


def ops_problem() -> 'str | None':
    """Runs one compiled operator of mmcv; returns what went wrong, or None."""
    try:
        import torch
        from mmcv.ops import nms

        boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 3.0], [8.0, 8.0, 9.0, 9.0]])
        _, kept = nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5)
    except (
        Exception,
        SystemExit,
    ) as error:  # an extension built for another torch fails in many ways
        return f'{type(error).__name__}: {error}'
    return None if kept.tolist() == [0, 2] else f'nms kept boxes {kept.tolist()}, expected [0, 2]'


def torch_version() -> 'str | None':
    """What ``torch.__version__`` is, without the seconds of importing torch."""
    spec = util.find_spec('torch')
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).with_name('version.py')
    return runpy.run_path(str(file))['__version__'] if file.is_file() else None


def operators_are_built(ops: Path) -> bool:
    """Whether a build for the torch beside this Python left its library, or the reason why not.

    Args:
        ops: The folder ``mmsw/ops`` of a checkout.
    """
    version = torch_version()
    if version is None:
        return False
    compiled = runpy.run_path(str(ops / 'compiled.py'))
    return (
        compiled['library_path'](version, ops).is_file()
        or compiled['record_path'](version, ops).is_file()
    )


def is_installed_as_mmsw(checkout: Path) -> bool:
    """Whether this checkout is installed in place under the name ``mmsw``.

    A distribution of that name that came from anywhere else is somebody else's.
    """
    try:
        origin = metadata.distribution('mmsw').read_text('direct_url.json')
    except metadata.PackageNotFoundError:
        return False
    known = json.loads(origin or '{}')
    place = parse.urlsplit(known.get('url', ''))
    return (
        place.scheme == 'file'
        and Path(parse.unquote(place.path)).resolve() == checkout.resolve()
        and known.get('dir_info', {}).get('editable') is True
    )


def parse_args(argv: 'list[str] | None' = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_EPILOG,
    )
    parser.add_argument(
        '--for',
        dest='purpose',
        choices=PURPOSES,
        default='run',
        help='what the Python is for: run the tools, make the demo, run the tests, or build the '
        'docs (default: %(default)s)',
    )
    parser.add_argument(
        '--import', dest='do_import', action='store_true', help='also import every module (slow)'
    )
    parser.add_argument(
        '--table',
        action='store_true',
        help='print the environment as a Markdown table, to paste into an issue, and check nothing',
    )
    parser.add_argument('--operators', action='store_true', help=argparse.SUPPRESS)
    parser.add_argument('--stale-name', type=Path, metavar='CHECKOUT', help=argparse.SUPPRESS)
    return parser.parse_args(argv)


_EPILOG = """\
Exit code: 0 all present; 1 something is missing or mixed up; 3 the compiled operators of mmcv do
not work with this torch.

Examples:
  python tools/check_env.py
  python tools/check_env.py --for test --import
  python tools/check_env.py --table
"""


def main(argv: 'list[str] | None' = None) -> int:
    args = parse_args(argv)
    if args.operators:
        return 0 if operators_are_built(Path(__file__).resolve().parents[1] / 'mmsw/ops') else 1
    if args.stale_name is not None:
        return 0 if is_installed_as_mmsw(args.stale_name) else 1
    if sys.version_info < MIN_PYTHON:
        print(
            f'error: {sys.executable} is Python {sys.version.split()[0]}; '
            f'mmsw needs {".".join(map(str, MIN_PYTHON))} or newer',
            file=sys.stderr,
        )
        return 1
    if args.table:
        from _env_table import environment_table

        print(environment_table((STACK_PACKAGES, ONEDL_PACKAGES), ops_problem))
        return 0
    modules = PURPOSES[args.purpose]
    problems = find_problems(modules)
    if not problems and args.do_import:
        problem = ops_problem()
        if problem:
            print(f'error: the operators of mmcv do not work here: {problem}', file=sys.stderr)
            return OPS_UNUSABLE
        problems = import_all(modules)
    if problems:
        print(f'error: {sys.executable} cannot be used:', file=sys.stderr)
        for problem in problems:
            print(f'  - {problem}', file=sys.stderr)
        return 1
    print(describe())
    return 0


if __name__ == '__main__':
    sys.exit(main())
