"""The names of OaaS's package proposal. Law: each is an alias of bema's own."""

from bema.packages.classes import export_class
from bema.packages.decorators import bind, oaas_function, package, state_spec
from bema.packages.export import MetadataRepo

__all__ = ["MetadataRepo", "bind", "export_class", "oaas_function", "package", "state_spec"]
