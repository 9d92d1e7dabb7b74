"""`dynamo.runtime.logging`: what a program logs, on its standard error.

`DYN_LOG` says from which level on, as there.
"""

from __future__ import annotations

import logging
import os

_LEVELS = {"trace": logging.DEBUG, "warn": logging.WARNING}


def configure_dynamo_logging(service_name: str | None = None, worker_id: int | None = None) -> None:
    """Send every logger's records to standard error, with the name of the service; other handlers of the root leave."""
    who = ":".join(str(part) for part in (service_name, worker_id) if part is not None)
    mark = f"[{who}] ".replace("%", "%%") if who else ""
    logging.basicConfig(
        level=level_of(os.environ.get("DYN_LOG", "info")),
        format=f"%(asctime)s %(levelname)s {mark}%(name)s: %(message)s",
        force=True,
    )


def level_of(said: str) -> int:
    """The level that `DYN_LOG` names first, as in `debug,module=trace`; INFO for one that nobody knows."""
    name = said.lower().split(",")[0].strip()
    return _LEVELS.get(name) or logging.getLevelNamesMapping().get(name.upper()) or logging.INFO


log_level_mapping = level_of
