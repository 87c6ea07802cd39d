"""The build of the compiled operators: what is built, for what, and what happens when it fails.

``setup.py`` uses it. The operators are an addition: mmsw computes the same without them, slower.
So whatever keeps them from being compiled costs one line, and the installation goes on. The reason
is also written beside the operators, since pip shows no output of a build that succeeds;
``mmsw.ops.available_backends()`` repeats it.

``MMSW_BUILD_OPS`` chooses: ``0`` leaves the operators out, ``1`` or ``require`` ends the
installation where they cannot be compiled; unset tries.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent
OPS = Path('mmsw', 'ops')
VARIABLE = 'MMSW_BUILD_OPS'
TITLES = {'cpp': 'C++', 'cuda': 'CUDA'}
# What to compile for where no GPU tells: compute capability and the first torch that knows it.
GENERATIONS = [
    ('7.5', (2, 4)),
    ('8.0', (2, 4)),
    ('8.6', (2, 4)),
    ('8.9', (2, 4)),
    ('9.0', (2, 4)),
    ('10.0', (2, 7)),
    ('12.0', (2, 7)),
]
# Every compiler that can build the operators takes this; with OpenMP it needs that, too.
_PROBE = """\
#ifdef _OPENMP
#include <omp.h>
int threads() { return omp_get_max_threads(); }
#else
#include <vector>
int threads() { return static_cast<int>(std::vector<int>{1}.size()); }
#endif
"""


class CannotBuildError(Exception):
    """A reason, in one line, why an operator cannot be compiled here."""


def load_compiled() -> ModuleType:
    """``mmsw/ops/compiled.py`` on its own: importing mmsw would need torch and mmengine."""
    path = ROOT / OPS / 'compiled.py'
    spec = importlib.util.spec_from_file_location('mmsw_ops_compiled', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


compiled = load_compiled()


def wish(value: str | None) -> str:
    """What ``MMSW_BUILD_OPS`` asks for: ``'no'``, ``'try'`` or ``'must'``.

    Raises:
        SystemExit: If the value is unknown.
    """
    wishes = {None: 'try', '': 'try', '0': 'no', '1': 'must', 'require': 'must'}
    if value not in wishes:
        raise SystemExit(f"error: {VARIABLE}={value!r} is unknown; choose 0, 1 or 'require'")
    return wishes[value]


def left_out(backend: str, reason: str) -> str:
    """The line that says that a backend was left out of the build."""
    return (
        f'mmsw: the {TITLES[backend]} operators were not compiled ({reason}); '
        'mmsw will use the slower torch backend'
    )


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def probe(compiler: list[str], flags: list[str]) -> str | None:
    """Compiles a few lines into a shared library; returns why that fails, or ``None``.

    Args:
        compiler: Command of a C++ compiler.
        flags: Flags to try.
    """
    if shutil.which(compiler[0]) is None:
        return f'no C++ compiler {compiler[0]!r} was found'
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, 'probe.cpp')
        source.write_text(_PROBE, encoding='utf-8')
        command = [*compiler, '-std=c++17', '-fPIC', '-shared', *flags]
        try:
            done = subprocess.run(
                [*command, str(source), '-o', str(source.with_suffix('.so'))],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding='utf-8',
                errors='replace',
                check=False,
            )
        except OSError as error:
            return f'the C++ compiler {compiler[0]!r} does not start: {error}'
    if done.returncode == 0:
        return None
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    telling = [line for line in lines if 'error' in line.lower()] or lines or ['no message']
    return f'the C++ compiler {compiler[0]!r} does not work: {telling[0]}'


def openmp_flags(compiler: list[str], wanted: list[str]) -> list[str]:
    """The OpenMP flags, or none where the compiler refuses them.

    Args:
        compiler: Command of a C++ compiler.
        wanted: The flags that turn OpenMP on; may be empty.

    Raises:
        CannotBuildError: If the compiler does not even work without them.
    """
    if wanted and probe(compiler, wanted) is None:
        return wanted
    reason = probe(compiler, [])
    if reason is not None:
        raise CannotBuildError(reason)
    if wanted:
        say(
            f'mmsw: the C++ compiler {compiler[0]!r} refuses {" ".join(wanted)}; '
            'the C++ operators will use one thread'
        )
    return []


def default_architectures(listed: str, torch_version: str) -> str:
    """A value for ``TORCH_CUDA_ARCH_LIST`` where no GPU is there to tell what to compile for.

    Args:
        listed: Output of ``nvcc --list-gpu-arch``, a line such as ``compute_80`` each.
        torch_version: ``torch.__version__``; torch refuses generations that it does not know.

    Returns:
        Generations, separated by semicolons; the last one also as PTX, which newer GPUs compile for
        themselves. Empty if nvcc lists none of them.
    """
    known = set(re.findall(r'compute_(\d+)\b', listed))
    torch_release = tuple(map(int, compiled.release(torch_version).split('.')[:2]))
    names = [
        name
        for name, first in GENERATIONS
        if name.replace('.', '') in known and torch_release >= first
    ]
    return ';'.join(names) + ('+PTX' if names else '')


def choose_architectures(nvcc: str, torch_version: str) -> str:
    """Asks nvcc what it can compile for; see :func:`default_architectures`.

    Raises:
        CannotBuildError: If it cannot be asked or knows none of the generations.
    """
    try:
        listed = subprocess.run(
            [nvcc, '--list-gpu-arch'], capture_output=True, encoding='utf-8', check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise CannotBuildError(f'{nvcc} cannot be asked what it compiles for: {error}') from error
    chosen = default_architectures(listed, torch_version)
    if not chosen:
        raise CannotBuildError(
            'no GPU is visible and nvcc knows none of the usual ones; set TORCH_CUDA_ARCH_LIST'
        )
    return chosen


def setup_arguments() -> tuple[dict, dict[str, str], str | None]:
    """What to compile here.

    Returns:
        Arguments of ``setup`` (``ext_modules``, ``build_ext``), none if nothing is compiled; what
        is left out already, backend to reason; the version of torch, or ``None``.
    """
    asked = wish(os.environ.get(VARIABLE))
    if asked == 'no':
        return {}, {'cpp': f'{VARIABLE}=0 was set'}, _torch_version()
    try:
        import torch
        from torch.utils import cpp_extension
    except ImportError as error:
        reason = (
            f'torch cannot be imported where mmsw is built: {error}; pip builds in an environment '
            'of its own unless it gets --no-build-isolation'
        )
        if asked == 'must':
            raise SystemExit(f'error: {VARIABLE} asks for the operators, but {reason}') from error
        return {}, {'cpp': reason}, None
    extensions, reasons = _extensions(torch, cpp_extension)
    command = _build_command(torch, cpp_extension, reasons, must=asked == 'must')
    return {'ext_modules': extensions, 'build_ext': command}, {}, torch.__version__


def _torch_version() -> str | None:
    try:
        import torch
    except ImportError:
        return None
    return torch.__version__


def _extensions(torch: ModuleType, cpp_extension: ModuleType) -> tuple[list, dict[str, str]]:
    """What this torch can be extended by, and why not by the rest, backend to reason."""
    sources = ROOT / OPS / 'csrc'

    def names(*patterns: str) -> list[str]:
        found = (path for pattern in patterns for path in sources.glob(pattern))
        return sorted(str(path.relative_to(ROOT)) for path in found)

    def full_name(backend: str) -> str:
        return f'mmsw.ops.{compiled.library_name(backend, torch.__version__)}'

    # torch >= 2.4 builds its parallel loops with OpenMP; without the flag they would run serially.
    openmp = ['-fopenmp'] if torch.backends.openmp.is_available() else []
    # Contraction to fused multiply-add is meant; nothing else of -ffast-math is.
    cpp = cpp_extension.CppExtension(
        full_name('cpp'),
        names('*.cpp', 'cpu/*.cpp'),
        depends=names('*.h', 'cpu/*.h'),
        define_macros=[('MMSW_LIBRARY', 'mmsw_cpp'), ('MMSW_KEY', 'CPU')],
        extra_compile_args=['-O3', '-g0', '-ffp-contract=fast', '-Wno-psabi'],
    )
    cpp.backend, cpp.openmp = 'cpp', openmp
    if not torch.version.cuda:
        return [cpp], {}  # a build of torch for the CPU: nothing is missing
    if not cpp_extension.CUDA_HOME:
        return [cpp], {'cuda': 'nvcc was found neither on PATH nor by CUDA_HOME'}
    cuda = cpp_extension.CUDAExtension(
        full_name('cuda'),
        names('*.cpp', 'cuda/*.cpp', 'cuda/*.cu'),
        depends=names('*.h', 'cuda/*.h', 'cuda/*.cuh'),
        define_macros=[('MMSW_LIBRARY', 'mmsw_cuda'), ('MMSW_KEY', 'CUDA')],
        extra_compile_args={'cxx': ['-O3', '-g0'], 'nvcc': ['-O3']},
    )
    cuda.backend, cuda.openmp = 'cuda', []
    return [cpp, cuda], {}


def _build_command(
    torch: ModuleType, cpp_extension: ModuleType, reasons: dict[str, str], must: bool
) -> type:
    """The command ``build_ext`` that compiles what it can and says what it cannot."""
    from distutils.ccompiler import get_default_compiler  # setuptools brings it

    version = torch.__version__

    class BuildOperators(cpp_extension.BuildExtension):
        """Builds each extension by itself: one that fails does not take the others along."""

        def finalize_options(self) -> None:
            super().finalize_options()
            # ninja does not notice that torch was exchanged
            if Path(self.build_temp).name != compiled.torch_tag(version):
                self.build_temp = os.path.join(self.build_temp, compiled.torch_tag(version))

        def run(self) -> None:
            asked, inplace, compiler = self.extensions, self.inplace, self.compiler
            folder = self.build_temp
            built, failed = [], dict(reasons)
            for extension in asked:
                self.extensions, self.inplace, self.compiler = [extension], inplace, compiler
                self.build_temp = os.path.join(folder, extension.backend)  # they share csrc/*.cpp
                try:
                    if (compiler or get_default_compiler()) == 'msvc':
                        raise CannotBuildError('MSVC cannot compile them')
                    super().run()
                except Exception as error:  # whatever goes wrong, mmsw runs without
                    failed[extension.backend] = _one_line(error)
                else:
                    built.append(extension)
            self.extensions, self.inplace = built, inplace
            for backend, reason in failed.items():
                say(left_out(backend, reason))
            if must and len(built) < len(asked):
                raise SystemExit(f'error: {VARIABLE} asks for the operators; see the lines above')
            compiled.write_record(Path(self.build_lib, OPS), version, failed)
            if inplace:
                compiled.write_record(ROOT / OPS, version, failed)

        def build_extensions(self) -> None:
            (extension,) = self.extensions
            openmp = openmp_flags(self._cxx(), extension.openmp)
            if extension.backend == 'cpp':
                extension.extra_compile_args = [*extension.extra_compile_args, *openmp]
                extension.extra_link_args = [*extension.extra_link_args, *openmp]
            else:
                self._choose_architectures()
            super().build_extensions()

        def get_ext_filename(self, fullname: str) -> str:
            return os.path.join(*fullname.split('.')) + compiled.LIBRARY_SUFFIX

        def get_outputs(self) -> list[str]:
            record = compiled.record_path(version, Path(self.build_lib, OPS))
            return super().get_outputs() + ([str(record)] if record.is_file() else [])

        def _cxx(self) -> list[str]:
            if self.use_ninja:  # then torch chooses the compiler
                return shlex.split(os.environ.get('CXX') or 'c++')
            return self.compiler.compiler_so[:1]

        def _choose_architectures(self) -> None:
            if os.environ.get('TORCH_CUDA_ARCH_LIST') or torch.cuda.is_available():
                return
            nvcc = os.path.join(cpp_extension.CUDA_HOME, 'bin', 'nvcc')
            chosen = choose_architectures(nvcc, version)
            os.environ['TORCH_CUDA_ARCH_LIST'] = chosen
            say(
                f'mmsw: no GPU is visible; the CUDA operators are compiled for {chosen}. '
                'Set TORCH_CUDA_ARCH_LIST to choose'
            )

    return BuildOperators


def _one_line(error: Exception) -> str:
    if isinstance(error, CannotBuildError):
        return str(error)
    text = ' '.join(str(error).split()) or type(error).__name__
    return f'the build failed: {text[:200]}; `pip install -v` shows the whole output'
