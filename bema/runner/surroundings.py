"""What a script finds around it: environment, descriptors, `sys.argv` and `sys.path`, as if it had been run by itself."""

from __future__ import annotations

import os
import site
import sys
from pathlib import Path
from typing import Any


def prepare(init: dict[str, Any]) -> None:
    os.environ.update(init.get("env") or {})
    for name in ("listen_fd", "lease_fd", "operations_fd"):
        if init.get(name) is not None:
            # what the script starts must hold none of them when the script is gone
            os.set_inheritable(init[name], False)
    if (init.get("entry") or {}).get("kind", "main") == "main":
        port = str(init.get("listen", "")).rpartition(":")[2]
        if port.isdecimal():
            os.environ["PORT"] = port
    script = Path(init["script"])
    sys.argv = [str(script)]
    sys.path.insert(0, str(script.parent))
    for folder in init.get("site") or ():
        site.addsitedir(folder)
    if init.get("platform"):
        # last, so that whatever the script brought itself comes first
        sys.path.append(init["platform"])
