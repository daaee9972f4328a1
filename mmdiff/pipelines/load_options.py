"""How a foreign model is loaded, whatever it is for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LoadOptions:
    """How a backend's model is loaded: `device` cpu, cuda, cuda:1; `dtype` float32, bfloat16 or float16.

    `offload` is none, model or sequential; `loras` are hub ids, folders or files. None leaves it to the backend.
    """

    device: str | None = None
    dtype: str | None = None
    offload: str = "none"
    loras: tuple[str, ...] = ()
