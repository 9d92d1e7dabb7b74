"""Who is asking. Identity comes from the credential, never from a body."""

from __future__ import annotations

import msgspec


class Principal(msgspec.Struct, frozen=True):
    """The holder of a credential. `admin` may do everything; others see what they own."""

    name: str
    admin: bool = False

    def owns(self, owner: str) -> bool:
        return self.admin or self.name == owner


LOCAL_ADMIN = Principal("local", admin=True)
