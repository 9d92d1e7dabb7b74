"""The inside of a deployed script: it reads Init, makes the surroundings a script expects, and runs the script.

Law: standard library only, and nothing of bema is imported here: a script's environment decides what there is. What needs
bema, serving an app or a service, is reached by the name that Init gives (`host`).
"""
