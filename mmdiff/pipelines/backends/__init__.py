"""Backends of the two stages; each is loaded by `mmdiff.pipelines.two_stage.registry` when it is asked for."""
