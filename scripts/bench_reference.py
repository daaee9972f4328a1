"""The network of MM-Diffusion's own implementation, from a checkout that the caller has, to be measured beside ours.

Nothing of it is needed for anything else. What it imports to build its network is torch, einops and numpy.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from einops import rearrange
from torch import Tensor, nn

if TYPE_CHECKING:
    from bench_network import Case


class Reference(nn.Module):
    """The reference's base network with the widths of a case; takes and returns states in our layout.

    Errors: `ValueError` where the folder holds no such checkout.
    """

    def __init__(self, folder: str, case: "Case"):
        super().__init__()
        if not (Path(folder) / "mm_diffusion" / "multimodal_unet.py").is_file():
            raise ValueError(f"--reference {folder}: no mm_diffusion/multimodal_unet.py there; "
                             "give the folder of a checkout of MM-Diffusion")  # fmt: skip
        sys.path.insert(0, folder)
        from mm_diffusion.multimodal_unet import MultimodalUNet

        channels, frames, height, width = case.video
        self.network = MultimodalUNet(
            video_size=[frames, channels, height, width],
            audio_size=list(case.audio),
            model_channels=case.settings.get("model_channels", 128),
            video_out_channels=channels,
            audio_out_channels=case.audio[0],
            num_res_blocks=2,
            cross_attention_resolutions=[2, 4, 8],
            cross_attention_windows=[1, 4, 8],
            cross_attention_shift=True,
            video_attention_resolutions=[2, 4, 8],
            audio_attention_resolutions=[-1],
            channel_mult=(1, 2, 3, 4),
            num_heads=4,
            num_head_channels=64,
            use_scale_shift_norm=True,
            resblock_updown=True,
        )

    def forward(self, noisy: dict[str, Tensor], timesteps: dict[str, Tensor], shifts: None = None) -> dict[str, Tensor]:
        """Predict as ours does; its shifts are drawn inside."""
        video = rearrange(noisy["video"], "b c f h w -> b f c h w").contiguous()
        video, audio = self.network(video, noisy["audio"], timesteps["video"])
        return {"video": rearrange(video, "b f c h w -> b c f h w"), "audio": audio}
