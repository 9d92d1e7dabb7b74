"""The keeper: the process that holds what must outlive the others.

It holds listeners, children, module channels, log pipes and the state lock, and it decides nothing: what runs is the
orchestrator's wish. Law: standard library only, one thread, no wait outside the selector; whatever a child, the
orchestrator or the disk does, the keeper lives. When it dies all the same, the warden of each child ends it with all that
it started, and the next `bema up` whatever is left.
"""
