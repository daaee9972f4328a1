"""The card of a data set: README.md with what the folder holds, in the form that Hugging Face reads."""

from pathlib import Path
from typing import Any

from data_tools.cut_config import SOURCE, CutConfig, tool_version
from data_tools.dataset import CARD_NAME, write_text


def write_card(out: Path, config: CutConfig, stats: dict[str, Any]) -> None:
    """Write the card of a set that was cut."""
    splits = {name: split for name, split in stats["splits"].items() if split["clips"]}
    files = "\n".join(f"  - split: {name}\n    path: files/{name}/**" for name in splits)
    table = "\n".join(
        f"| {name} | {split['clips']} | {split['sources']} | {split['hours']:.3f} |" for name, split in splits.items()
    )
    licences = "\n".join(f"- {name}: {count} clips" for name, count in stats["licences"].items())
    rejects = "\n".join(f"- {rule}: {count}" for rule, count in stats["rejects"].items()) or "- none"
    head = f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}\n---\n" if splits else ""
    write_text(out / CARD_NAME, f"""{head}# Clips of {config.seconds} s, picture and sound

{stats["clips"]} clips from {stats["sources"]} recordings, cut by {tool_version()} in mode `{config.mode}`.

| split | clips | sources | hours |
| --- | ---: | ---: | ---: |
{table}

Each file was encoded anew, picture and sound both from 0 on, in MP4: H.264 (crf {config.crf}, a key frame a second) of
{_told(config.size, "size", " pixels")} ({config.fit}) at {_told(config.fps, "frame rate", " frames a second")};
{config.audio_codec.upper()} with {_told(config.channels, "channels")} at {_told(config.sample_rate, "rate", " Hz")}.
Every file was decoded after writing, and its frames and samples counted. No recording is in two splits.

`manifest.jsonl` and `manifest.parquet` say of every clip where it comes from (`source_path`, `source_sha256`, `start`),
`rejects.parquet` what was left out and why, `config.yaml` the settings.

## Licences
The clips have the licence of their recording; as far as it is known:

{licences or "- no clips"}

## Left out
{rejects}
""")  # fmt: skip


def _told(value: str, what: str, unit: str = " channels") -> str:
    return f"the recording's {what}" if value == SOURCE else f"{value}{unit}"
