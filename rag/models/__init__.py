"""Model store: a name becomes a folder of safetensors on this machine.

A name is a recipe (a folder under `data/models/`, built once into the user's cache), a local folder,
or a hub id. Nothing is ever unpickled: a model without safetensors is refused. `recipe` is what a
recipe may say, `base` where its base comes from, `merge` what becomes of the base, `store` the folders.
"""

from rag.models.recipe import Kind, Recipe
from rag.models.store import Finish, ModelStatus, ModelStore, ResolvedModel

__all__ = ["Finish", "Kind", "ModelStatus", "ModelStore", "Recipe", "ResolvedModel"]
