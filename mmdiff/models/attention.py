"""Softmax attention, by the name of what computes it."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

ATTENTION_BACKENDS = ("sdpa", "flash", "xformers")
SCORES_IN_CACHE = 2**22


def attend(
    query: Tensor, key: Tensor, value: Tensor, num_heads: int, backend: str = "sdpa", mask: Tensor | None = None
) -> Tensor:
    """Return softmax attention of tokens `b q d` over tokens `b k d`; the heads lie inside d.

    `sdpa` leaves the choice of a kernel to PyTorch, `flash` asks for its flash kernel, `xformers` needs the package and
    a GPU. With a `mask` (bool `b 1 1 k`: what may be attended to) the choice is PyTorch's: the others take none.
    """
    if mask is not None:
        query, key, value = (rearrange(x, "b s (n d) -> b n s d", n=num_heads) for x in (query, key, value))
        return rearrange(F.scaled_dot_product_attention(query, key, value, attn_mask=mask), "b n s d -> b s (n d)")
    if backend == "xformers":
        from xformers.ops import memory_efficient_attention

        query, key, value = (rearrange(x, "b s (n d) -> b s n d", n=num_heads) for x in (query, key, value))
        return rearrange(memory_efficient_attention(query, key, value), "b s n d -> b s (n d)")
    if query.device.type == "cpu" and query.dtype == torch.bfloat16 and not torch.is_grad_enabled():
        return _by_products(query, key, value, num_heads)
    query, key, value = (rearrange(x, "b s (n d) -> b n s d", n=num_heads) for x in (query, key, value))
    if backend == "flash":
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            out = F.scaled_dot_product_attention(query, key, value)
    else:
        out = F.scaled_dot_product_attention(query, key, value)
    return rearrange(out, "b n s d -> b s (n d)")


def check_backend(name: str) -> None:
    """Refuse a backend that is not known, or not to be had here.

    Errors: `ValueError`.
    """
    if name not in ATTENTION_BACKENDS:
        raise ValueError(f"attention backend '{name}' is not known; use one of {', '.join(ATTENTION_BACKENDS)}")
    if name == "xformers":
        try:
            import xformers.ops  # noqa: F401
        except ImportError as error:
            raise ValueError(f"attention backend 'xformers': {error}; install xformers, or use sdpa") from error
        if not torch.cuda.is_available():
            raise ValueError("attention backend 'xformers' needs a GPU, and torch sees none here; use sdpa")


def _by_products(query: Tensor, key: Tensor, value: Tensor, num_heads: int) -> Tensor:
    """The same with two matrix products, as many sequences at a time as the cache holds scores.

    On a CPU oneDNN multiplies bfloat16 so fast that this takes 0.4 of the flash kernel's time (docs/performance.md).
    """
    heads = (rearrange(x, "b s (n d) -> b n s d", n=num_heads) for x in (query, key, value))
    count = max(1, SCORES_IN_CACHE // (num_heads * query.shape[1] * key.shape[1]))
    out = []
    for q, k, v in zip(*(x.split(count) for x in heads)):
        weight = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        out.append(rearrange(weight.softmax(dim=-1) @ v, "b n s d -> b s (n d)"))
    return out[0] if len(out) == 1 else torch.cat(out)
