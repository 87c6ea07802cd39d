"""Packaging of mmsw: version from mmsw/version.py, requirements from requirements/*.txt.

The distribution is called mmshiftwise, since mmsw belongs to somebody else on the package index;
what is imported is called mmsw.

Where torch can be imported (``pip install --no-build-isolation``) the compiled operators are built
as well: ``mmsw/ops/_cpp_torch*`` with any C++ compiler but MSVC, ``mmsw/ops/_cuda_torch*`` where
torch is a CUDA build and nvcc is found. Where no GPU is visible, ``TORCH_CUDA_ARCH_LIST='8.0 9.0'``
says what to build for; unset, the usual generations are taken. What cannot be compiled is left out
with one line. ``MMSW_BUILD_OPS=0`` leaves all of it out; ``MMSW_BUILD_OPS=1`` (or ``require``)
turns that line into an error. See build_ops.py.
"""

import re
import runpy
import shutil
import sys
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
MIM_PARTS = ('configs', 'tools', 'model-index.yml')

sys.path.insert(0, str(ROOT))  # pip runs this file without its folder on the path
import build_ops  # noqa: E402

sys.path.remove(str(ROOT))


def read_requirements(name: str) -> list[str]:
    """Returns the requirement lines of ``requirements/{name}.txt`` without comments."""
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text(encoding='utf-8').splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith('#')]


def long_description() -> str:
    """Returns README.md for a package index, which has no files beside it.

    Pictures go with the captions below them, comments go, and of links to files the text stays.
    """
    text = (ROOT / 'README.md').read_text(encoding='utf-8')
    text = re.sub(r'<!--.*?-->\n?', '', text, flags=re.DOTALL)
    text = re.sub(r'!\[[^\]]*\]\((?!https?:)[^)]*\)\n(\*[^*]*\*\n)?', '', text)
    return re.sub(r'\[([^\]]*)\]\((?!https?:)[^)]*\)', r'\1', text)


COMPILED, LEFT_OUT, TORCH_VERSION = build_ops.setup_arguments()


class BuildWithMim(build_py):
    """Also copies configs, tools and the model index to ``mmsw/.mim``, where OpenMIM looks.

    An editable install is left alone: the files are in the source tree, beside the package.
    """

    def run(self) -> None:
        if not self.editable_mode:
            self._forget_the_last_build()
        super().run()
        self._say_what_is_left_out()
        if not self.editable_mode:
            self._copy_mim_parts()

    def _forget_the_last_build(self) -> None:
        """Modules deleted since and operators of another torch must not get into a wheel."""
        package = Path(self.build_lib) / 'mmsw'
        if package.resolve() != ROOT / 'mmsw':
            shutil.rmtree(package, ignore_errors=True)

    def _say_what_is_left_out(self) -> None:
        for backend, reason in LEFT_OUT.items():
            build_ops.say(build_ops.left_out(backend, reason))
        if LEFT_OUT:
            place = ROOT if self.editable_mode else Path(self.build_lib)
            build_ops.compiled.write_record(place / build_ops.OPS, TORCH_VERSION, LEFT_OUT)

    def _copy_mim_parts(self) -> None:
        target = self._mim_folder()
        shutil.rmtree(target, ignore_errors=True)
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
            folder = Path(self.build_lib) / build_ops.OPS
            record = build_ops.compiled.record_path(TORCH_VERSION, folder)
            outputs += [str(record)] if LEFT_OUT and record.is_file() else []
        return outputs

    def _mim_folder(self) -> Path:
        return Path(self.build_lib) / 'mmsw' / '.mim'


setup(
    name='mmshiftwise',
    version=runpy.run_path(str(ROOT / 'mmsw' / 'version.py'))['__version__'],
    description=(
        'Sparse shift-wise large-kernel backbones for OpenMMLab: train, fine-tune and stay sparse'
    ),
    long_description=long_description(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    license_files=['LICENSE'],
    keywords=['computer vision', 'semantic segmentation', 'object detection', 'sparse training'],
    classifiers=[
        'Development Status :: 3 - Alpha',
        'Intended Audience :: Developers',
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3 :: Only',
        'Programming Language :: Python :: 3.11',
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
        'export': read_requirements('export'),
        'monitor': read_requirements('monitor'),
        'test': read_requirements('test') + read_requirements('demo'),
        'docs': read_requirements('docs'),
    },
    ext_modules=COMPILED.get('ext_modules', []),
    cmdclass={
        'build_py': BuildWithMim,
        **({'build_ext': COMPILED['build_ext']} if COMPILED else {}),
    },
    zip_safe=False,
)
