"""A packaged class: `bema package print examples/packages/counter.py` prints its document."""

from bema.compat.oaas import bind, oaas_function, package, state_spec


@package(
    name="com.example.analytics",
    version="1.0.0",
    author="Alice",
    description="Example analytics package",
    tags=["python", "grpc"],
)
@state_spec(key_specs=[("count", "int", False)], consistency_model="READ_YOUR_WRITE", persistent=True)
class Counter:
    """Simple counter object"""

    def __init__(self) -> None:
        self.count = 0

    @oaas_function(key="counter.incr", description="Increment a counter")
    @bind(name="incr", function_key="counter.incr")
    def incr(self, delta: int) -> int:
        self.count += delta
        return self.count

    @oaas_function(key="counter.describe")
    @bind(name="describe", function_key="counter.describe", stateless=True)
    def describe(self) -> str:
        """What a counter is."""
        return "counts"
