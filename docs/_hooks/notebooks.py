"""Executes the notebooks of docs/tutorials and makes them pages of the site.

A notebook runs where the code blocks of a page run: in a temporary folder that looks like a
checkout with demo data, see tests/docs/page_sandbox.py. The kernel is the Python that builds the
site. A cell that fails ends the build. ``MMSW_DOCS_NOTEBOOKS=skip`` shows them without output.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[2]
CELL_LIMIT = 600  # seconds
_ANSI = re.compile(r'\x1b\[[0-9;]*[A-Za-z]')
_BASH = re.compile(r'^```(?:python|bash)\n%%bash\n', re.MULTILINE)


class NotebookPage(File):
    """A file of mkdocs whose name ends in ``.ipynb`` and whose text is Markdown."""

    def is_documentation_page(self) -> bool:
        return True


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Called by mkdocs with all files before it reads any."""
    for file in [file for file in files if file.src_uri.endswith('.ipynb')]:
        text, pictures = _as_markdown(Path(file.abs_src_path))
        files.remove(file)
        files.append(NotebookPage.generated(config, file.src_uri, content=text))
        folder = Path(file.src_uri).parent
        for name, content in pictures.items():
            files.append(File.generated(config, (folder / name).as_posix(), content=content))
    return files


def _as_markdown(path: Path) -> tuple[str, dict[str, bytes]]:
    """The text of a notebook after it ran, and its pictures by their names."""
    import nbformat
    from nbconvert import MarkdownExporter

    notebook = nbformat.read(path, as_version=4)
    if os.environ.get('MMSW_DOCS_NOTEBOOKS') != 'skip':
        _execute(notebook, path.name)
    where = dict(unique_key=path.stem, output_files_dir=f'{path.stem}_files')
    text, resources = MarkdownExporter().from_notebook_node(notebook, resources=where)
    return _BASH.sub('```bash\n', _ANSI.sub('', text)), resources['outputs']


def _execute(notebook: NotebookNode, name: str) -> None:
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpecManager
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    sys.path.insert(0, str(ROOT / 'tests' / 'docs'))
    from page_runner import environment
    from page_sandbox import make_sandbox, shared_demo

    # Without folders of kernels it knows the running Python only.
    kernel = AsyncKernelManager(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))
    with tempfile.TemporaryDirectory(prefix='mmsw_notebook_') as folder:
        sandbox = Path(folder) / 'mmsw'
        make_sandbox(sandbox, shared_demo())
        place = {'metadata': {'path': str(sandbox)}}
        client = NotebookClient(
            notebook, km=kernel, timeout=CELL_LIMIT, resources=place, coalesce_streams=True
        )
        env = environment()
        del env['MPLBACKEND']  # the kernel's own shows plots in the notebook
        try:
            client.execute(env=env)
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            raise PluginError(f'{name}: {_ANSI.sub("", str(error))}') from None
