"""Packaging of mmsw: version from mmsw/version.py, requirements from requirements/*.txt.

Where torch can be imported (``pip install --no-build-isolation``) the compiled backends of the
operators are built as well: ``mmsw.ops._cpp`` with any C++ compiler, ``mmsw.ops._cuda`` where torch
is a CUDA build, nvcc is found, and a GPU is visible or ``TORCH_CUDA_ARCH_LIST='8.0 9.0'`` says what
to build for. Without torch, or with ``MMSW_BUILD_OPS=0``, mmsw is installed without them and says
so when they are asked for.
"""

import os
import runpy
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
MIM_PARTS = ('configs', 'tools', 'model-index.yml')


def read_requirements(name: str) -> list[str]:
    """Returns the requirement lines of ``requirements/{name}.txt`` without comments."""
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text(encoding='utf-8').splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith('#')]


def compiled_backends() -> dict:
    """Returns the arguments of ``setup`` that build the compiled backends, or none."""
    if os.environ.get('MMSW_BUILD_OPS', '1') == '0':
        return {}
    try:
        import torch
        from torch.utils import cpp_extension
    except ImportError:
        return {}
    sources = ROOT / 'mmsw' / 'ops' / 'csrc'

    def names(*patterns: str) -> list[str]:
        found = (path for pattern in patterns for path in sources.glob(pattern))
        return sorted(str(path.relative_to(ROOT)) for path in found)

    # Contraction to fused multiply-add is meant; nothing else of -ffast-math is.
    flags = ['-O3', '-ffp-contract=fast', '-Wno-psabi']
    # torch >= 2.4 builds its parallel loops with OpenMP; without the flag they would run serially.
    openmp = ['-fopenmp'] if torch.backends.openmp.is_available() else []
    extensions = [
        cpp_extension.CppExtension(
            'mmsw.ops._cpp',
            names('cpu/*.cpp'),
            depends=names('cpu/*.h'),
            extra_compile_args=flags + openmp,
            extra_link_args=openmp,
        )
    ]
    cuda_sources = names('cuda/*.cu', 'cuda/binding.cpp')
    # Without a GPU torch cannot tell what to compile for, and fails.
    known_gpu = torch.cuda.is_available() or os.environ.get('TORCH_CUDA_ARCH_LIST')
    if cuda_sources and torch.version.cuda and cpp_extension.CUDA_HOME and known_gpu:
        extensions.append(
            cpp_extension.CUDAExtension(
                'mmsw.ops._cuda',
                cuda_sources,
                depends=names('cuda/*.h', 'cuda/*.cuh'),
                extra_compile_args={'cxx': ['-O3'], 'nvcc': ['-O3']},
            )
        )
    # Plain file names: the C++ library is no Python module and serves every Python version.
    build = cpp_extension.BuildExtension.with_options(no_python_abi_suffix=True)
    return {'ext_modules': extensions, 'build_ext': build}


COMPILED = compiled_backends()


class BuildWithMim(build_py):
    """Also copies configs, tools and the model index to ``mmsw/.mim``, where OpenMIM looks.

    An editable install is left alone: the files are in the source tree, beside the package.
    """

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        target = self._mim_folder()
        shutil.rmtree(target, ignore_errors=True)  # files deleted from the tree must not linger
        target.mkdir(parents=True)
        for part in MIM_PARTS:
            source = ROOT / part
            if source.is_dir():
                ignore = shutil.ignore_patterns('__pycache__', '*.py[cod]')
                shutil.copytree(source, target / part, ignore=ignore)
            else:
                shutil.copy2(source, target / part)

    def get_outputs(self, *args, **kwargs) -> list[str]:
        outputs = list(super().get_outputs(*args, **kwargs))
        if not self.editable_mode:
            outputs += [str(path) for path in self._mim_folder().rglob('*') if path.is_file()]
        return outputs

    def _mim_folder(self) -> Path:
        return Path(self.build_lib) / 'mmsw' / '.mim'


setup(
    name='mmsw',
    version=runpy.run_path(str(ROOT / 'mmsw' / 'version.py'))['__version__'],
    description=(
        'Sparse shift-wise large-kernel backbones for OpenMMLab: train, fine-tune and stay sparse'
    ),
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    license_files=['LICENSE'],
    keywords=['computer vision', 'semantic segmentation', 'object detection', 'sparse training'],
    classifiers=[
        'Development Status :: 3 - Alpha',
        'Intended Audience :: Developers',
        'Intended Audience :: Science/Research',
        'Operating System :: OS Independent',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3 :: Only',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
        'Topic :: Scientific/Engineering :: Image Recognition',
    ],
    python_requires='>=3.10',
    packages=find_packages(include=['mmsw', 'mmsw.*']),
    install_requires=read_requirements('runtime'),
    extras_require={
        'openmmlab': read_requirements('openmmlab'),
        'onedl': read_requirements('onedl'),
        'pretrain': read_requirements('pretrain'),
        'onedl-pretrain': read_requirements('onedl-pretrain'),
        'taichi': read_requirements('taichi'),
        'demo': read_requirements('demo'),
        'test': read_requirements('test') + read_requirements('demo'),
    },
    ext_modules=COMPILED.get('ext_modules', []),
    cmdclass={
        'build_py': BuildWithMim,
        **({'build_ext': COMPILED['build_ext']} if COMPILED else {}),
    },
    zip_safe=False,
)
