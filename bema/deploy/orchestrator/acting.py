"""Who acts in an operation of the orchestrator.

Law: a call that came on a connection is believed as far as the credential of that connection reaches.
"""

from __future__ import annotations

from bema.core.access import Principal, Scope, permitted
from bema.core.call import CURRENT
from bema.core.errors import Denied


def acting(principal: Principal | None, scope: Scope) -> Principal:
    """Who asks, where they may: what the body says can only be who the credential may speak for."""
    asks, call = permitted(principal, scope), CURRENT.get()
    if call is not None and (call.principal is None or not call.principal.speaks_for(asks)):
        raise Denied(f"the credential of this connection does not speak for {asks.subject!r}")
    return asks
