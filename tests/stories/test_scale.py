"""From zero and back: a function sleeps when nobody uses it, and whoever asks wakes as many instances as are needed."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path

import httpx2
import pytest

from tests.stories.harness import Platform, processes_of, until

pytestmark = pytest.mark.slow

SLOW = """
import asyncio, os
import bema_story

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    await asyncio.sleep(0.3)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
"""
