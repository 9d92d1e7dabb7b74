"""What tests of services, and of parts that replace ours, are made of: `System`, and a conformance suite per kind of part."""

from bema.testing.system import System

__all__ = ["System"]
