"""Pet segmentation, from a paper to a model that people use."""

__version__ = "0.1.0"
