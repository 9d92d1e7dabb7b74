"""Typed clients as text: a module that declares a service for projects without its class.

Laws: the same spec gives the same bytes. The module holds an abstract service with its models, so that a client is made of
it as of any service class, and needs bema alone. Models travel by their fields: whatever class a model was, the module has
a struct of the same fields.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator, Sequence

from bema.core import describe
from bema.core.instance import EndpointInfo, Instance
from bema.core.spec import EndpointSpec, ServiceSpec
from bema.sdk.codegen import described
from bema.sdk.codegen.models import MISSING, Names, literal

WIDTH = 80  # of a method's head; a longer one has a line for each parameter


def module(spec: ServiceSpec, *, stub: bool = False) -> str:
    """The text of a `.py` module that declares the service, or of the `.pyi` stub beside it."""
    methods = {endpoint.attribute or endpoint.name for endpoint in spec.endpoints}
    # the service has its name first; a model of the same name gets the number
    names = Names(stub=stub, shadowed=methods, taken={(cls := class_name(spec.name))})
    body = _spaced([_method(endpoint, names, stub=stub) for endpoint in spec.endpoints], stub=stub)
    head = [] if stub else [f'@service(name="{spec.name}", namespace="{spec.namespace}", abstract=True)']
    head += [f"class {cls}(abc.ABC):", _indented(docstring(spec.doc or f"The service at {spec.address}."))]
    parts = [*names.models, "\n".join(head) + ("\n\n" + _indented(body) if body else "")]
    room = "\n\n" if stub else "\n\n\n"
    return "\n".join((_opening(spec, cls), *_imports(names, stub=stub))) + room + room.join(parts) + "\n"


def class_name(name: str) -> str:
    """The class of a component: `my-worker` is `MyWorker`."""
    return "".join(word[:1].upper() + word[1:] for word in name.replace("-", "_").split("_"))


def told_spec(namespace: str, component: str, endpoints: Sequence[EndpointInfo]) -> ServiceSpec:
    """What records alone tell of a component, as a spec: names and shapes. Types and defaults are not told, so that any
    parameter may be left out and the service says which may not."""
    record = Instance(id=0, namespace=namespace, component=component, endpoints=tuple(endpoints))
    return described.spec_from(describe.told(record))


def docstring(text: str) -> str:
    """A docstring, whatever the text holds."""
    lines = inspect.cleandoc(text).replace("\\", "\\\\").replace('"""', r"\"\"\"").splitlines()
    lines = [line.rstrip() for line in lines]
    return f'"""{lines[0]}"""' if len(lines) == 1 else "\n".join((f'"""{lines[0]}', *lines[1:], '"""'))


def _opening(spec: ServiceSpec, cls: str) -> str:
    return (
        f'"""The service at {spec.address}, for its callers: `runtime.client({cls})` calls it.\n\n'
        'Made by `bema client gen`; made again of the same service, it is the same.\n"""\n\n'
        "from __future__ import annotations\n"
    )


def _imports(names: Names, *, stub: bool) -> Iterator[str]:
    """The imports, sorted as formatters sort them, so that a project that formats the module changes nothing."""
    modules = {"abc"} | names.modules
    theirs = {"msgspec"} & modules
    froms = {module: found for module, found in names.imported.items() if found}
    yield from (f"import {module}" for module in sorted(modules - theirs))
    yield from (f"from {module} import {', '.join(sorted(froms[module]))}" for module in sorted(froms))
    if theirs or not stub:
        yield ""
    if theirs:
        yield "import msgspec"
    if not stub:
        yield "from bema import endpoint, service"


def _method(endpoint: EndpointSpec, names: Names, *, stub: bool) -> str:
    name = endpoint.attribute or endpoint.name
    options = [f'name="{endpoint.name}"'] if name != endpoint.name else []
    options += ["idempotent=True"] if endpoint.idempotent else []
    marks = ["@abc.abstractmethod"] if stub else [f"@endpoint({', '.join(options)})", "@abc.abstractmethod"]
    returns = names.of(endpoint.returns)
    streams = endpoint.shape.streams_out
    if streams:
        returns = f"{names.of_abc('AsyncIterator')}[{returns}]"
    head = _head(f"{'' if streams else 'async '}def {name}", list(_parameters(endpoint, names)), f"-> {returns}:")
    if not endpoint.doc:
        return "\n".join((*marks, f"{head} ..."))
    return "\n".join((*marks, head, _indented(docstring(endpoint.doc))))


def _spaced(methods: list[str], *, stub: bool) -> str:
    """The methods with the blank lines that formatters put between them; a stub's methods without body need none."""
    return "".join(text + ("\n" if stub and text.endswith("...") else "\n\n") for text in methods).rstrip()


def _head(name: str, parameters: list[str], returns: str) -> str:
    line = f"{name}({', '.join(parameters)}) {returns}"
    if len(line) <= WIDTH:
        return line
    return "\n".join((f"{name}(", *(f"    {parameter}," for parameter in parameters), f") {returns}"))


def _parameters(endpoint: EndpointSpec, names: Names) -> Iterator[str]:
    """The parameters, required ones first; where that is not their order, the others can be given by name only."""
    required = [f"{p.name}: {names.of(p.type)}" for p in endpoint.parameters if p.required]
    if endpoint.incoming is not None:
        item = names.of(endpoint.facts.get("requests", MISSING))
        required.append(f"{endpoint.incoming}: {names.of_abc('AsyncIterator')}[{item}]")
    optional = [p for p in endpoint.parameters if not p.required]
    in_order = all(p.required for p in endpoint.parameters[: len(endpoint.parameters) - len(optional)])
    yield "self"
    yield from required
    if not in_order:
        yield "*"
    for parameter in optional:
        yield f"{parameter.name}: {names.of(parameter.type)} = {'...' if names.stub else literal(parameter.default) or '...'}"


def _indented(text: str) -> str:
    return textwrap.indent(text, "    ")
