"""Files of audiocraft: a state by name, and the settings of its model as YAML; nothing in them is executed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from mmdiff.convert.file import State, checked_state, read_content

LANGUAGE_MODEL, CODEC = "state_dict.bin", "compression_state_dict.bin"
VERSION = "1.3.0"  # of audiocraft, whose form is written
EXPORT_FIRST = ("export it first, where audiocraft is installed, in Python: from audiocraft.utils.export import "
                "export_lm; export_lm('{}', 'new/state_dict.bin')")  # fmt: skip


@dataclass(frozen=True)
class Package:
    """A model of audiocraft: tensors in float32, settings, and the licence where one was noted.

    A codec by reference has the name of another and no tensors.
    """

    path: Path
    state: State
    settings: DictConfig
    pretrained: str | None = None
    licence: str | None = None

    def get(self, name: str, default: Any = None) -> Any:
        """Return the setting of a dotted name as plain values; `default` where it is not there.

        Errors: `ValueError` where it cannot be made out.
        """
        try:
            value = OmegaConf.select(self.settings, name, default=default)
        except Exception as error:  # omegaconf raises whatever its resolvers raise
            raise ValueError(f"{self.path}: setting {name} in xp.cfg cannot be made out ({error})") from error
        return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value

    def need(self, name: str, kind: type) -> Any:
        """Return a setting that must be there.

        Errors: `ValueError` where it is not, or is of another kind.
        """
        value = self.get(name)
        value = float(value) if kind is float and type(value) is int else value
        if type(value) is not kind:
            raise ValueError(f"{self.path}: setting {name} in xp.cfg is {value!r}, not of kind {kind.__name__}; this "
                             f"is no MusicGen of audiocraft, or not all of it")  # fmt: skip
        return value

    def expect(self, wanted: dict[str, tuple[Any, Any]]) -> None:
        """Check settings against the only values that can be converted; second is audiocraft's own where none is said.

        Errors: `ValueError` that names the first that differs.
        """
        for name, (value, usual) in wanted.items():
            found = self.get(name, usual)
            if found != value:
                raise ValueError(f"{self.path}: {name} is {found!r}; transformers' model has {value!r} there and "
                                 f"nothing else, so it cannot be converted")  # fmt: skip


def read_package(path: Path) -> Package:
    """Read an exported model of audiocraft, or a training run's best state where its settings are text.

    Errors: `ValueError` where it is none, is damaged, or must be unpickled.
    """
    try:
        content = read_content(path)
    except ValueError as error:
        if "Unsupported" not in str(error) and "eights only" not in str(error):
            raise
        raise ValueError(f"{path}: holds more than tensors and text, as the checkpoints of training runs do, and is "
                         f"not unpickled; {EXPORT_FIRST.format(path.name)}") from error  # fmt: skip
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds a {type(content).__name__}, not a model of audiocraft")
    if isinstance(content.get("pretrained"), str):
        return Package(path, {}, OmegaConf.create(), pretrained=content["pretrained"])
    state = content.get("fsdp_best_state") or content.get("best_state")
    state = state["model"] if isinstance(state, dict) and isinstance(state.get("model"), dict) else state
    if not isinstance(state, dict) or not isinstance(content.get("xp.cfg"), str):
        raise ValueError(f"{path}: no best_state and xp.cfg in it, so no model of audiocraft; give its "
                         f"{LANGUAGE_MODEL} or the folder that holds it")  # fmt: skip
    try:
        settings = OmegaConf.create(content["xp.cfg"])
    except Exception as error:  # the readers of YAML raise whatever they raise
        raise ValueError(f"{path}: xp.cfg in it is not readable as YAML ({error})") from error
    if not isinstance(settings, DictConfig):
        raise ValueError(f"{path}: xp.cfg in it holds no settings by name")
    licence = content.get("licence")
    return Package(path, checked_state(path, state), settings, licence=licence if isinstance(licence, str) else None)


def write_package(path: Path, state: State, settings: dict[str, Any], licence: str | None = None) -> None:
    """Write a model as audiocraft's own export does; it passes over the note of a licence."""
    note = {} if licence is None else {"licence": licence}
    content = {"best_state": state, "xp.cfg": OmegaConf.to_yaml(OmegaConf.create(settings)), "version": VERSION,
               "exported": True, **note}  # fmt: skip
    torch.save(content, path)
