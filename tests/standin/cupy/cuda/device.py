"""``cupy.cuda.device`` of CuPy 13."""

from typing import Any


class Device:
    """A device, equal to its number."""

    def __init__(self, device: Any = 0) -> None:
        self.id = int(device or 0)

    def __int__(self) -> int:
        return self.id

    def __enter__(self) -> "Device":
        return self

    def __exit__(self, *args: object) -> None:
        return None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device | int) and int(self) == int(other)

    def __hash__(self) -> int:
        return self.id

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id}>"

    def synchronize(self) -> None:
        """Nothing is under way."""
