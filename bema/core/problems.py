"""Every code of ours as one row: the status that leaves each door, what it means, and what to do about it.

Law: the code alone decides. No door has a table of its own, and `bema explain CODE` prints nothing that is not here.
"""

from __future__ import annotations

import msgspec


class Problem(msgspec.Struct, frozen=True):
    """One row of the table: the outward statuses of a code, its meaning and its remedy."""

    http: int
    grpc: int
    exit: int
    says: str
    fix: str


# gRPC numbers: https://grpc.github.io/grpc/core/md_doc_statuscodes.html
# exit codes: 1 the user's fault, 2 ours, 3 not reachable, 4 not ready in time
PROBLEMS: dict[str, Problem] = {
    "internal": Problem(500, 13, 2, "bema itself failed.", "Report it with the trace id and the log lines around it."),
    "invalid_argument": Problem(
        422,
        3,
        1,
        "A value does not fit the declared type.",
        "Send what the signature asks for; the path names the field.",
    ),
    "bad_declaration": Problem(
        500, 9, 1, "A class or function is declared in a way that can never work.", "Change the declaration it names."
    ),
    "bad_name": Problem(
        422,
        3,
        1,
        "A name breaks the naming rule.",
        "Namespaces and components: a letter, then letters, digits, '_' or '-', at most 63. Endpoints: a Python"
        " identifier. Deployments: lower-case letters, digits and '-', at most 63.",
    ),
    "bad_setting": Problem(
        422, 3, 1, "A setting has a value it cannot take.", "`bema config show --origin` tells where it comes from."
    ),
    "usage": Problem(
        422, 3, 1, "The command line cannot be read.", "`bema COMMAND --help` shows what the command takes."
    ),
    "not_found": Problem(
        404, 5, 1, "There is nothing of that name, or it is not yours.", "`bema ls` lists what there is."
    ),
    "name_taken": Problem(
        409,
        6,
        1,
        "A deployment of that name exists.",
        "Choose another name with `--name`, or remove it with `bema rm NAME`, which keeps what it wrote for the next of that name.",
    ),
    "already_served": Problem(
        409,
        6,
        1,
        "This runtime already serves an endpoint of that name.",
        "Serve it once, or give one of them another name.",
    ),
    "conflict": Problem(
        409,
        10,
        1,
        "The state of what was asked for does not allow it.",
        "Read its state again, then ask what it allows.",
    ),
    "rate_limited": Problem(429, 8, 3, "The caller asked more often than it may.", "Wait, then ask more slowly."),
    "unauthenticated": Problem(
        401,
        16,
        1,
        "No valid credential came with the request.",
        "Send `Authorization: Bearer TOKEN`; `bema status` prints the token's file.",
    ),
    "forbidden": Problem(403, 7, 1, "The credential does not allow this.", "Use a credential that does."),
    "too_large": Problem(
        413, 8, 1, "A message or body is larger than its limit.", "Send less, or raise the limit it names."
    ),
    "overloaded": Problem(
        503, 8, 3, "Every slot and every place in the queue is taken.", "Try again after the time it names."
    ),
    "unavailable": Problem(
        503,
        14,
        3,
        "No instance can take the call; nothing was sent, so trying again is safe.",
        "Start the service, or wait until it is ready.",
    ),
    "disconnected": Problem(
        502,
        14,
        3,
        "The connection was lost after the call was sent: its outcome is unknown.",
        "Repeat it only if running twice does no harm.",
    ),
    "handed_over": Problem(
        503,
        14,
        3,
        "The instance stops, and its stream goes on elsewhere.",
        "Continue it from its last item; clients of bema do that by themselves while another instance is there.",
    ),
    "not_durable": Problem(
        400, 9, 1, "This call is not written down.", "Declare its endpoint with @endpoint(durable=True)."
    ),
    "not_replayable": Problem(
        500,
        9,
        1,
        "A durable handler waits for something that a replay could not give it.",
        "Do it in a step: `await call.step(function, ...)`; wait with `call.sleep(seconds)` and `call.timeout(seconds)`.",
    ),
    "not_recordable": Problem(
        500,
        9,
        1,
        "The result of a step cannot be written down.",
        "Return plain values, or annotate what the step returns.",
    ),
    "history_mismatch": Problem(
        409,
        9,
        1,
        "The history of a durable call and its code disagree.",
        "Bring the code back and resume the call, or restart it from a step: bema calls restart ID --from STEP.",
    ),
    "retries_exhausted": Problem(
        409, 9, 1, "A step failed as often as it may.", "Mend the cause, then: bema calls resume ID."
    ),
    "call_paused": Problem(
        409, 9, 1, "The durable call is paused.", "`bema calls show ID` says why; then resume, restart or cancel it."
    ),
    "call_cancelled": Problem(409, 1, 1, "The durable call was cancelled.", "Make a new call."),
    "call_exists": Problem(409, 6, 1, "Another call has this id or key.", "Use another key, or the same arguments."),
    "jobs_full": Problem(
        503,
        8,
        3,
        "As many durable calls wait and run as are taken: this one was not kept.",
        "Try again later, end some of `bema calls ls`, or raise the limit `jobs_live`.",
    ),
    "stale_claim": Problem(409, 10, 1, "Another process has taken this call over.", "Nothing: it goes on there."),
    "bad_move": Problem(
        409, 9, 1, "The call cannot do this in its state.", "`bema calls show ID` says which it is in."
    ),
    "stream_cut": Problem(
        502,
        14,
        3,
        "A stream ended before its producer finished it.",
        "What came before is whole; ask again for the rest.",
    ),
    "deadline_exceeded": Problem(
        504,
        4,
        4,
        "The time given to the call ran out.",
        "Give it more time, or find what was slow in the logs by trace id.",
    ),
    "cancelled": Problem(499, 1, 130, "The caller gave the call up.", "Nothing to do."),
    "remote_error": Problem(
        500,
        2,
        1,
        "The service raised an error it had not declared.",
        "The message names its type; the service's log has the traceback.",
    ),
    "bad_answer": Problem(
        500,
        13,
        1,
        "The service answered what its signature does not allow, or what cannot travel.",
        "Mend what the endpoint returns, or its annotation; the message names the path.",
    ),
    "protocol": Problem(
        400,
        13,
        2,
        "The peer spoke something that is not our protocol.",
        "Check that both sides are bema and at most one minor version apart.",
    ),
    # the HTTP doors
    "bad_request": Problem(
        400,
        3,
        1,
        "The request is not acceptable HTTP/1.1; nothing was forwarded and the connection was closed.",
        "The message names what is wrong with it.",
    ),
    "head_too_large": Problem(
        431, 8, 1, "The request's headers are too many or too long.", "Send fewer, or raise the limit it names."
    ),
    "request_timeout": Problem(
        408, 4, 1, "The request did not arrive in time; the connection was closed.", "Send it in one go."
    ),
    "method_not_allowed": Problem(405, 12, 1, "That method is not served here.", "The message names those that are."),
    "bad_upstream": Problem(
        502, 13, 1, "The instance answered something that is not HTTP/1.1.", "Mend what the script's server sends."
    ),
    # deploying
    "syntax_error": Problem(422, 3, 1, "The script is not valid Python.", "Mend the line it names."),
    "script_too_large": Problem(413, 8, 1, "The script is larger than its limit.", "Move data out of the script."),
    "pep723_malformed": Problem(
        422,
        3,
        1,
        "The script's `# /// script` block is not valid TOML, or a key has the wrong type.",
        "Mend the line it names.",
    ),
    "pep723_unclosed": Problem(
        422, 3, 1, "The script's `# /// script` block has no closing `# ///`.", "Add the closing line."
    ),
    "pep723_duplicated": Problem(422, 3, 1, "The script has more than one `# /// script` block.", "Keep one."),
    "python_unavailable": Problem(
        422,
        9,
        1,
        "No Python on this machine satisfies `requires-python`.",
        "Install one of that version, or widen the range.",
    ),
    "entry_not_found": Problem(
        422,
        3,
        1,
        "`[tool.bema] entry` names something the script does not have.",
        "Name a class, an app or an MCP object of the script.",
    ),
    "entry_ambiguous": Problem(
        422,
        3,
        1,
        "The script has several services and nothing says which one to serve.",
        'Name it: `[tool.bema]` with `entry = "Class"` in the script\'s block, or start it under `__main__`.',
    ),
    "secret_missing": Problem(
        424, 9, 1, "A function is to be given a secret that is not set.", "Set it: `bema secret set NAME -`."
    ),
    "key_exists": Problem(
        409, 6, 1, "A key of that name is in force.", "Choose another name, or revoke it: `bema keys revoke NAME`."
    ),
    "key_reused": Problem(
        409,
        6,
        1,
        "The idempotency key was used for a request with another body.",
        "Use a new key for a new request.",
    ),
    "build_failed": Problem(
        424,
        9,
        1,
        "The script's dependencies could not be locked or installed.",
        "The resolver's text says which and why.",
    ),
    "start_failed": Problem(
        503, 9, 4, "The script ended, or never listened.", "Its last log lines say why; `bema logs NAME` has the rest."
    ),
    "isolation_missing": Problem(
        503,
        9,
        1,
        "This machine cannot contain a script as far as is asked for.",
        "`bema doctor` tells what is missing; lower `isolation.kind`, or use a newer kernel.",
    ),
    "crash_loop": Problem(
        503,
        9,
        4,
        "The instance dies again and again.",
        "Its last log lines say why; deploying a new version starts afresh.",
    ),
    "starting": Problem(
        504, 4, 4, "The instance was not ready within the start limit.", "Wait and try again, or raise the limit."
    ),
    "building": Problem(
        503, 14, 4, "The environment is still being built.", "Try again after the time in Retry-After."
    ),
    # where code comes from
    "entry_file_missing": Problem(
        422,
        3,
        1,
        "Nothing says which file of a source is run.",
        "Call it main.py, or name it: `entry` beside the source, or `[tool.bema] entry_file` in pyproject.toml.",
    ),
    "pyproject_malformed": Problem(
        422, 3, 1, "The source's pyproject.toml cannot be used as it is.", "Mend the key or line it names."
    ),
    "lock_outdated": Problem(
        422,
        9,
        1,
        "The source's uv.lock does not fit its pyproject.toml, or cannot be installed from.",
        "Run `uv lock` and deploy again, or leave uv.lock out.",
    ),
    "source_too_large": Problem(
        413, 8, 1, "The source is larger than its limit.", "Leave data out, or raise the limit it names."
    ),
    "archive_refused": Problem(
        422,
        3,
        1,
        "The archive holds what cannot be files of a source.",
        "Make it anew of plain files below one folder; the message names the entry.",
    ),
    # parts and plugins
    "no_implementation": Problem(
        404,
        5,
        1,
        "A factory has nothing of that name, or a selection matches no candidate.",
        "`bema plugins ls` lists every candidate and who wins.",
    ),
    "implementation_failed": Problem(
        500,
        9,
        1,
        "The selected implementation cannot be loaded, or may not be.",
        "`bema plugins doctor` says what is wrong; select another implementation, or mend or remove the plugin.",
    ),
    "construction_failed": Problem(
        500, 9, 1, "The constructor of an implementation raised.", "The cause is chained; check the arguments."
    ),
    # the machine
    "already_up": Problem(
        409,
        9,
        1,
        "Another `bema up` holds this state directory.",
        "Use that one (`bema status`), or set BEMA_STATE_DIR.",
    ),
    "not_up": Problem(503, 14, 3, "No platform runs on this state directory.", "Start it with `bema up`."),
    "port_in_use": Problem(
        409, 9, 1, "A port that was asked for is taken.", "Stop what listens there, or ask for another port."
    ),
    "state_unwritable": Problem(
        500, 9, 1, "The state directory cannot be written.", "Make it yours and writable, or set BEMA_STATE_DIR."
    ),
    "no_flock": Problem(
        500,
        9,
        1,
        "The file system of the state directory has no working flock.",
        "Set BEMA_STATE_DIR to a local file system.",
    ),
    "store_newer": Problem(
        500,
        9,
        1,
        "The store was written by a newer bema.",
        "Install that version or newer, or use another state directory.",
    ),
    "state_held": Problem(
        409, 9, 1, "Another process has this state open.", "Stop the process it names, or use another state directory."
    ),
    "state_failed": Problem(
        503,
        14,
        2,
        "The state is not written any more: the disk failed, or it was closed.",
        "Look after the disk, then start what uses it again.",
    ),
    "record_unreadable": Problem(
        500,
        13,
        2,
        "What is stored of this cannot be read; it was set aside.",
        "Remove it with `bema rm NAME`, which keeps what it wrote, and deploy it again; the log says what is wrong with it.",
    ),
    "not_supported": Problem(
        501, 12, 1, "This machine or this version cannot do that.", "The message says what would."
    ),
    # packages
    "bad_document": Problem(
        422, 3, 1, "A package document cannot be read.", "Mend the line it names; `bema package lint` names them all."
    ),
    "no_plan": Problem(
        422,
        9,
        1,
        "A package cannot be planned as asked.",
        "Change what it names: the environments, or what is required.",
    ),
    "missing_extra": Problem(
        501, 12, 1, "An optional dependency is not installed.", "Install the extra that the message names."
    ),
    "extension_missing": Problem(
        501,
        12,
        1,
        "An endpoint needs an extension that is not installed where it is served.",
        "Install a distribution that names it under `bema.extensions`; `bema plugins ls` lists what is found.",
    ),
}
