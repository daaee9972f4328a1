"""PEAQ Basic (ITU-R BS.1387-1) of a coded sound against its own reference."""

from mmdiff.eval.metrics.peaq.basic import PeaqResult, peaq_basic

__all__ = ["PeaqResult", "peaq_basic"]
