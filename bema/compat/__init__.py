"""Names of other systems: code that was written for `X` runs when its import root becomes `bema.compat.X`.

Law: every name here is an alias of, or a call into, the one real path; no room imports this one.
"""
