"""Which terminals are connected to this gateway, and since when the others are not."""


class Contacts:
    """By terminal number; knows nothing of before `since_ms`, when the gateway started."""

    def __init__(self, since_ms: int) -> None:
        self.since_ms = since_ms
        self.here: set[int] = set()
        self.left_ms: dict[int, int] = {}

    def came(self, terminal: int) -> None:
        """It is connected."""
        self.here.add(terminal)
        self.left_ms.pop(terminal, None)

    def left(self, terminal: int, now_ms: int) -> None:
        """Its last connection has ended."""
        self.here.discard(terminal)
        self.left_ms[terminal] = now_ms
