# /// script
# requires-python = ">=3.11"
# dependencies = ["mcp>=2.3,<3"]
# ///
"""An MCP server with two tools: `bema deploy examples/tools.py`, then point an MCP client at URL/mcp."""

from datetime import date

from mcp.server import MCPServer

mcp = MCPServer("tools")


@mcp.tool()
def add(a: float, b: float) -> float:
    """The sum of two numbers."""
    return a + b


@mcp.tool()
def days_between(first: str, last: str) -> int:
    """How many days lie between two dates (YYYY-MM-DD)."""
    return (date.fromisoformat(last) - date.fromisoformat(first)).days
