"""Ways to run an extraction: one file each, the same rows from all."""

from vqa_train.core.plugins import Registry

ENGINES = Registry(
    "engine",
    {"local": "vqa_train.engines.local:LocalEngine", "ray": "vqa_train.engines.ray_engine:RayEngine"},
    extra="ray",
)
