"""Networks as files that other runtimes run: programs, files of each format, what runs them."""

from .metadata import ExportMetadata
from .program import Program
from .programs import program_of
from .quantization import QuantizationReport, quantize
from .runtimes import ExportedProgram, open_program
from .writers import write_program

__all__ = [
    'ExportMetadata',
    'ExportedProgram',
    'Program',
    'QuantizationReport',
    'open_program',
    'program_of',
    'quantize',
    'write_program',
]
