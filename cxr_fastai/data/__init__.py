"""A row to (image, metadata) and its label: fastai's DataBlock and DataLoaders."""
from .loaders import radiograph_block, radiograph_tfms, RadiographDataLoaders
from .metadata import MetadataTransform

__all__ = ["MetadataTransform", "radiograph_block", "radiograph_tfms", "RadiographDataLoaders"]
