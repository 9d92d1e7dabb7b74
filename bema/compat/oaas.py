"""For people who come from OaaS: the names of its package proposal, each the one real thing."""

from bema.packages.classes import export_class
from bema.packages.decorators import bind, oaas_function, package, state_spec
from bema.packages.export import MetadataRepo

__all__ = ["MetadataRepo", "bind", "export_class", "oaas_function", "package", "state_spec"]
