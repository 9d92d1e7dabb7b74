"""The service `jobs` as a process of the platform: `python -m bema.jobs`, with the literal Init that the keeper gives it."""

from __future__ import annotations

import logging

from bema.jobs.service import Jobs
from bema.runtime.process.descriptors import raise_limit
from bema.sdk.boot import run
from bema.sdk.event_loop import loop_factory
from bema.sdk.lifecycle import serve

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    # a line per step would be the most of its log, and says what the calls themselves show
    logging.getLogger("bema.calls").setLevel(logging.WARNING)
    raise_limit()
    run(serve(Jobs), loop_factory(), platform=True)
