"""Packages: describe classes in code, print one portable document, check it, and plan where it runs.

Law: the document is the Rust `OPackage` model and nothing more; lint reports what that model would silently drop.
"""
