"""What a function runs in: images, the protocol, resources and bounds, and the state a class declares."""

from __future__ import annotations

from collections.abc import Iterator

from bema.packages.context import Hit, Provision, RuleContext
from bema.packages.opackage import FunctionType, ProvisionConfig
from bema.packages.scalars import amount

_RESOURCES = ("cpu_request", "memory_request", "cpu_limit", "memory_limit")
_PLACEHOLDER = "${"  # filled in by whoever applies the document


def missing_image(context: RuleContext) -> Iterator[Hit]:
    """The controllers leave such a function out without a word; a warning, because an export has no images yet."""
    for f, function in enumerate(context.package.functions):
        if function.function_type is FunctionType.CUSTOM and not (_config(function.provision_config).container_image):
            message = f"{function.key}: a CUSTOM function without container_image is dropped by the controllers"
            yield Hit(("functions", f), message, "Add provision_config.container_image.")


def missing_module(context: RuleContext) -> Iterator[Hit]:
    for f, function in enumerate(context.package.functions):
        if function.function_type is FunctionType.WASM and not (_config(function.provision_config).wasm_module_url):
            message = f"{function.key}: a WASM function without wasm_module_url cannot be loaded"
            yield Hit(("functions", f), message, "Add provision_config.wasm_module_url.")


def http2_absent(context: RuleContext) -> Iterator[Hit]:
    """Absent is an oversight with one remedy; `false` was written by somebody and is not ours to overrule."""
    for provision in _served(context):
        if not context.says(provision.path, "need_http2"):
            message = "need_http2 is absent and counts as false; the platform speaks gRPC"
            yield Hit(
                provision.path, message, "Add need_http2: true.", context.insert(provision.path, "need_http2", True)
            )


def http2_false(context: RuleContext) -> Iterator[Hit]:
    for provision in _served(context):
        if not provision.config.need_http2 and context.says(provision.path, "need_http2"):
            message = "need_http2 must be true: the platform speaks gRPC"
            yield Hit((*provision.path, "need_http2"), message, "Write need_http2: true.")


def bad_quantity(context: RuleContext) -> Iterator[Hit]:
    """The model has free text here; it is the cluster that refuses, when the function is already being started."""
    for provision in context.provisions():
        for name in _RESOURCES:
            text = getattr(provision.config, name)
            if text is not None and _PLACEHOLDER not in text and amount(text) is None:
                yield Hit(
                    (*provision.path, name),
                    f"{text!r} is not a quantity",
                    "Write it like 250m (CPU) or 256Mi (memory).",
                )


def milli_memory(context: RuleContext) -> Iterator[Hit]:
    for provision in context.provisions():
        for name in ("memory_request", "memory_limit"):
            text = getattr(provision.config, name) or ""
            if text.endswith("m") and amount(text) is not None:
                yield Hit((*provision.path, name), f"{text!r} is thousandths of a byte", f"Write {text[:-1]}Mi.")


def request_over_limit(context: RuleContext) -> Iterator[Hit]:
    for provision in context.provisions():
        for what in ("cpu", "memory"):
            asked = amount(getattr(provision.config, f"{what}_request") or "")
            most = amount(getattr(provision.config, f"{what}_limit") or "")
            if asked is not None and most is not None and asked > most:
                yield Hit((*provision.path, f"{what}_request"), f"{what}_request is above {what}_limit")


def port_zero(context: RuleContext) -> Iterator[Hit]:
    """A u16 to the model; to a socket it means any port, which nobody can address."""
    for provision in context.provisions():
        if provision.config.port == 0:
            yield Hit(
                (*provision.path, "port"), "port 0 is no port to reach a function at", "Name one, or leave it out."
            )


def scale_order(context: RuleContext) -> Iterator[Hit]:
    """A warning, because the reference platform takes it (and overwrites min_scale); the plan reports it too."""
    for provision in context.provisions():
        least, most = provision.config.min_scale, provision.config.max_scale
        if least is not None and most is not None and least > most:
            yield Hit((*provision.path, "min_scale"), f"min_scale {least} is above max_scale {most}")


def max_scale_zero(context: RuleContext) -> Iterator[Hit]:
    for provision in context.provisions():
        if provision.config.max_scale == 0:
            yield Hit((*provision.path, "max_scale"), "max_scale 0 never lets the function run")


def idle_provision(context: RuleContext) -> Iterator[Hit]:
    for provision in context.provisions():
        function = provision.function
        if function is not None and function.function_type not in (FunctionType.CUSTOM, FunctionType.WASM):
            message = f"a {function.function_type.value} function runs no container; its provision_config has no effect"
            yield Hit(provision.path, message, "Remove provision_config.")


def state_default_absent(context: RuleContext) -> Iterator[Hit]:
    for c, cls in enumerate(context.package.classes):
        path = ("classes", c, "state_spec")
        edited = False  # one insertion a round: two at one place would need a comma between them
        for name, usual in (("default_provider", "memory"), ("serialization_format", "json")):
            if cls.state_spec is not None and not getattr(cls.state_spec, name):
                edits = () if edited or context.says(path, name) else context.insert(path, name, usual)
                edited = edited or bool(edits)
                yield Hit(path, f"{name} is absent and becomes the empty text", f"Add {name}: {usual}.", edits)


def _config(config: ProvisionConfig | None) -> ProvisionConfig:
    return config or ProvisionConfig()


def _served(context: RuleContext) -> Iterator[Provision]:
    """Those that become a gRPC server: a WASM module is called in process."""
    for provision in context.provisions():
        if provision.function is None or provision.function.function_type is FunctionType.CUSTOM:
            yield provision
