"""Programs as files: ONNX, OpenVINO and ``torch.export``."""

from .write import write_program

__all__ = ['write_program']
