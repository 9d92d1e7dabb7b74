"""PACKAGE: describe classes in code, print one portable document, keep it conformant, plan where it runs.

Law: the document is the Rust `OPackage` model, nothing more; what that model would silently drop is said aloud by lint.
"""
