"""The networks of DOVER, DOVER++ and DOVER-Mobile: two backbones and two heads, under the published state-dict keys.

Wu et al., Exploring Video Quality Assessment on User Generated Contents from Aesthetic and Technical Perspectives
(ICCV 2023).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from vqa_train.backbones.dover_convnext import DoverConvNext, convnext_femto, convnext_tiny
from vqa_train.backbones.dover_convnext_cpu import convnext_features
from vqa_train.backbones.dover_cpu import is_fast
from vqa_train.backbones.dover_swin import DoverSwin
from vqa_train.backbones.dover_swin_cpu import swin_features


class DoverHead(nn.Module):
    """Score at every position of a feature map: (B, C, D, h, w) -> (B, 1, D, h, w)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc_hid = nn.Conv3d(width, hidden, 1)
        self.fc_last = nn.Conv3d(hidden, 1, 1)

    def forward(self, features: Tensor) -> Tensor:
        scores: Tensor = self.fc_last(F.gelu(self.fc_hid(features)))
        return scores


class DoverNetwork(nn.Module):
    """Features and score maps of both branches. For inference: there is no dropout, and no drop path.

    Clips are normalised: RGB levels 0..255, less (123.675, 116.28, 103.53), over (58.395, 57.12, 57.375).
    They have at least 2 frames of 32 x 32 pixels. A branch's score is the mean of its score map; what the head makes of
    the mean features is another number.

    Args:
        mobile: DOVER-Mobile; otherwise DOVER, whose network DOVER++ shares.

    Attributes:
        feature_dim: channels C of both feature maps, 768 or 384.
    """

    def __init__(self, *, mobile: bool = False) -> None:
        super().__init__()
        self.feature_dim = 384 if mobile else 768
        self.technical_backbone = convnext_femto() if mobile else DoverSwin()
        self.aesthetic_backbone = convnext_femto() if mobile else convnext_tiny()
        self.technical_head = DoverHead(self.feature_dim, 32 if mobile else 64)
        self.aesthetic_head = DoverHead(self.feature_dim, 32 if mobile else 64)

    def technical(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, C, D, h, w) and score map (B, 1, D, h, w) of fragments, float (B, 3, T, H, W).

        D is T / 2; h and w are H / 32 and W / 32, rounded up by DOVER and down by DOVER-Mobile.
        """
        features = _features(self.technical_backbone, clips)
        return features, self.technical_head(features)

    def aesthetic(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, C, D, h, w) and score map (B, 1, D, h, w) of whole frames, float (B, 3, T, H, W).

        D is T / 2; h and w are H / 32 and W / 32, rounded down.
        """
        features = _features(self.aesthetic_backbone, clips)
        return features, self.aesthetic_head(features)


def _features(backbone: DoverSwin | DoverConvNext, clips: Tensor) -> Tensor:
    if is_fast(clips):
        return swin_features(backbone, clips) if isinstance(backbone, DoverSwin) else convnext_features(backbone, clips)
    features: Tensor = backbone(clips)
    return features
