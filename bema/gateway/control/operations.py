"""The control API as one table: what is served, what it takes, what it answers.

Law: routes, the OpenAPI document and the documentation page are made from this table; none of them knows a path of its own.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from bema.core.access import Scope
from bema.deploy.model.changes import ChangeInfo
from bema.deploy.model.stack import Profile, Stack
from bema.gateway.control.bodies import (
    ChangeBody,
    CreateBody,
    CreateFields,
    CreateForm,
    DataFolders,
    Function,
    Functions,
    KeyBody,
    Keys,
    NewKey,
    OutdatedPackages,
    RollbackBody,
    SecretBody,
    Secrets,
    SettingsBody,
    TrafficBody,
    UpgradedFunction,
    Versions,
)

__all__ = ["OPERATIONS", "Operation"]


class Operation(NamedTuple):
    """One row: `answers` maps a status to the type or media type of its body."""

    method: str
    path: str
    name: str
    says: str
    answers: dict[int, Any]
    takes: Any = None
    forms: tuple[tuple[str, Any], ...] = ()  # what it takes beside, by media type
    query: tuple[tuple[str, type, str], ...] = ()
    header: tuple[tuple[str, str], ...] = ()
    scope: Scope = Scope.STATUS  # what who asks must be permitted
    open: bool = False  # needs no token
    alias_of: str = ""  # the operation that answers it

    @property
    def handler(self) -> str:
        return self.alias_of or self.name


_USER = ("user", str, "whose: another's for an administrator alone")
_KEY = ("Idempotency-Key", "the same key with the same body deploys once")
_CREATE: dict[str, Any] = {
    "answers": {202: Function},
    "takes": CreateBody,
    "forms": (("multipart/form-data", CreateForm), ("application/x-www-form-urlencoded", CreateFields)),
    "header": (_KEY,),
    "scope": Scope.WRITE,
}
_LIST: dict[str, Any] = {
    "answers": {200: Functions},
    "query": (_USER, ("after", str, "`next` of the page before"), ("count", int, "most items of one page")),
    "scope": Scope.READ,
}

_WHICH = (("version", str, "one of that version, `v3`"), ("instance", str, "the one of that id"))

OPERATIONS = (
    Operation("POST", "/faas/python", "create", "Deploy a Python script.", **_CREATE),
    Operation("GET", "/faas/python", "list", "List deployments, oldest first.", **_LIST),
    Operation("POST", "/mcp-service", "create_mcp", "The same as POST /faas/python.", **_CREATE, alias_of="create"),
    Operation("GET", "/mcp-service", "list_mcp", "The same as GET /faas/python.", **_LIST, alias_of="list"),
    Operation(
        "POST",
        "/faas/changes",
        "dry_run",
        "What deploying this, in the place of what has its name, would change.",
        {200: ChangeInfo},
        takes=CreateBody,
        scope=Scope.WRITE,
    ),
    Operation("GET", "/faas/python/{id}", "read", "Read one deployment.", {200: Function}, scope=Scope.READ),
    Operation(
        "PUT",
        "/faas/python/{id}",
        "update",
        "Make this the next version: it takes the requests once it serves, and changes nothing if it never does.",
        {202: Function},
        takes=ChangeBody,
        header=(_KEY,),
        scope=Scope.WRITE,
    ),
    Operation(
        "PATCH",
        "/faas/python/{id}",
        "configure",
        "Change settings that need no new process.",
        {200: Function},
        takes=SettingsBody,
        scope=Scope.WRITE,
    ),
    Operation(
        "GET",
        "/faas/python/{id}/versions",
        "versions",
        "List the versions that are kept, the newest first.",
        {200: Versions},
        scope=Scope.READ,
    ),
    Operation(
        "POST",
        "/faas/python/{id}/rollback",
        "rollback",
        "Go back to a version that was good; it takes the requests once it serves.",
        {202: Function},
        takes=RollbackBody,
        scope=Scope.WRITE,
    ),
    Operation(
        "PUT",
        "/faas/python/{id}/traffic",
        "traffic",
        "Share the requests out among versions that were good.",
        {202: Function},
        takes=TrafficBody,
        scope=Scope.WRITE,
    ),
    Operation(
        "GET",
        "/faas/python/{id}/events",
        "events",
        "What became of a deployment lately, one JSON object per line for each change.",
        {200: "application/x-ndjson"},
        query=(
            ("follow", bool, "stay and send each change as it comes"),
            ("since", int, "only what came after this instant, microseconds UTC"),
        ),
        scope=Scope.READ,
    ),
    Operation(
        "DELETE",
        "/faas/python/{id}",
        "delete",
        "Stop a deployment and forget it; what it wrote is kept for the next one of its name.",
        {204: None},
        query=(("purge", bool, "delete what it wrote, too"),),
        scope=Scope.WRITE,
    ),
    Operation(
        "GET",
        "/faas/python/{id}/logs",
        "logs",
        "Log lines, one JSON object per line.",
        {200: "application/x-ndjson"},
        query=(
            ("tail", int, "how many of the last lines"),
            ("follow", bool, "stay and send new lines as they come"),
            ("since", int, "only lines after this instant, microseconds UTC"),
            ("version", str, "only those of this version"),
            ("instance", str, "only those of this instance"),
        ),
        scope=Scope.READ,
    ),
    Operation(
        "GET",
        "/faas/python/{id}/stack",
        "stack",
        "Where the threads and tasks of an instance stand.",
        {200: Stack},
        query=_WHICH,
        scope=Scope.READ,
    ),
    Operation(
        "GET",
        "/faas/python/{id}/profile",
        "profile",
        "Where the time of an instance goes, from now on.",
        {200: Profile},
        query=(
            ("seconds", int, "how long it is looked at; 5 unless said"),
            ("idle", bool, "weigh the threads that wait, too"),
            *_WHICH,
        ),
        scope=Scope.READ,
    ),
    Operation(
        "GET",
        "/faas/python/{id}/outdated",
        "outdated",
        "Packages of its lock for which there are newer versions.",
        {200: OutdatedPackages},
        scope=Scope.READ,
    ),
    Operation(
        "POST",
        "/faas/python/{id}/upgrade",
        "upgrade",
        "Make the same with the newest packages the next version; a lock that comes out the same makes none.",
        {202: UpgradedFunction},
        scope=Scope.WRITE,
    ),
    Operation(
        "GET",
        "/faas/data",
        "data",
        "What functions wrote, by the name of their deployment.",
        {200: DataFolders},
        query=(
            ("name", str, "only that of the function of this name"),
            ("kept", bool, "only what no deployment has any more"),
        ),
        scope=Scope.READ,
    ),
    Operation(
        "DELETE",
        "/faas/data/{id}",
        "purge",
        "Delete what was kept of a deployment that is gone.",
        {204: None},
        scope=Scope.WRITE,
    ),
    Operation(
        "PUT",
        "/secrets/{name}",
        "set_secret",
        "Set a secret; what runs with another value of it is started anew.",
        {204: None},
        takes=SecretBody,
        query=(_USER,),
        scope=Scope.WRITE,
    ),
    Operation(
        "GET",
        "/secrets",
        "secrets",
        "List secrets, without their values.",
        {200: Secrets},
        query=(_USER,),
        scope=Scope.READ,
    ),
    Operation(
        "DELETE", "/secrets/{name}", "remove_secret", "Forget a secret.", {204: None}, query=(_USER,), scope=Scope.WRITE
    ),
    Operation(
        "POST",
        "/keys",
        "add_key",
        "Make a key for a user; the answer alone tells it.",
        {201: NewKey},
        takes=KeyBody,
        scope=Scope.KEYS,
    ),
    Operation("GET", "/keys", "keys", "List keys, without what they are.", {200: Keys}, scope=Scope.KEYS),
    Operation("DELETE", "/keys/{name}", "revoke_key", "Let nobody in with a key.", {204: None}, scope=Scope.KEYS),
    Operation("GET", "/status", "status", "What runs here.", {200: dict[str, Any]}),
    Operation("GET", "/metrics", "metrics", "Counters as Prometheus text.", {200: "text/plain"}),
    # a browser sends no bearer token, and these tell what every user of this version can read in the manual
    Operation("GET", "/openapi.json", "document", "This API as OpenAPI.", {200: dict[str, Any]}, open=True),
    Operation("GET", "/docs", "docs", "This API as a page.", {200: "text/html"}, open=True),
    Operation("GET", "/healthz", "health", "Whether this process answers.", {200: dict[str, Any]}, open=True),
    Operation("GET", "/readyz", "ready", "Whether the orchestrator answers too.", {200: dict[str, Any]}, open=True),
)
