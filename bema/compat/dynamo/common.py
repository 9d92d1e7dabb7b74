"""`dynamo.common`: engines of language models. Importing it, or anything in it, says what to use."""

from __future__ import annotations

from bema.compat.dynamo.refused import ENGINES, NotHere

raise NotHere("dynamo.common is not here", fix=ENGINES)
