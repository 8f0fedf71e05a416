"""A laboratory for the science of deep learning at small scale."""

__version__ = "0.1.0"
