"""For tests of services and of parts: the platform in one process, and what each kind of part must keep."""
