"""The backbones as torch modules: images in, features on a grid of cells out.

Each has `.patch` [px a cell], `.channels`, and `.network`, whose parameters carry the published names.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from difflib import get_close_matches
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Float32
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import resnet50

from cupola.errors import ConfigError
from cupola.semantics.backbones.settings import IMAGENET_DEVIATION, IMAGENET_MEAN, VitSizes

POSITION_OFFSET = 0.1
"""Added to the number of cells in the scale that positions are interpolated with: DINO's guard against rounding, which
shifts the sampling positions (spec-stage1 5.1)."""


class DinoVit(nn.Module):
    """A vision transformer of DINO: features are the tokens of the last block after the final norm."""

    kind: ClassVar[str] = "dino_vit"

    def __init__(self, sizes: VitSizes) -> None:
        super().__init__()
        self.sizes, self.patch, self.channels = sizes, sizes.patch, sizes.width
        self.network: Any = VisionTransformer(
            img_size=sizes.grid * sizes.patch,
            patch_size=sizes.patch,
            embed_dim=sizes.width,
            depth=sizes.depth,
            num_heads=sizes.heads,
            num_classes=0,
            global_pool="",
            dynamic_img_size=True,
        )

    def described(self) -> dict[str, Any]:
        """What a file of its weights must tell besides them."""
        return {"kind": self.kind, "heads": self.sizes.heads}

    def forward(self, images: Float32[Tensor, "b 3 h w"]) -> Float32[Tensor, "b c rows columns"]:
        """Features of normalised images whose sides are multiples of the patch. Raises `ConfigError` for others."""
        with half_precision(images):
            return self.cells(images)

    def cells(self, images: Float32[Tensor, "b 3 h w"]) -> Float32[Tensor, "b c rows columns"]:
        """The same in the precision that the caller chose, as training needs it."""
        tokens = self.tokens(images)
        for block in self.network.blocks:
            tokens = block(tokens)
        return self._on_grid(self.network.norm(tokens), images)

    def keys(self, images: Float32[Tensor, "b 3 h w"]) -> Float32[Tensor, "b c rows columns"]:
        """The keys of the last block's attention, its heads one after another: MaskCut's features."""
        with half_precision(images):
            tokens = self.tokens(images)
            for block in self.network.blocks[:-1]:
                tokens = block(tokens)
            last: Any = self.network.blocks[-1]
            # One product gives queries, keys and values; the middle third is all that is needed.
            wanted = slice(self.channels, 2 * self.channels)
            weight, bias = last.attn.qkv.weight[wanted], last.attn.qkv.bias[wanted]
            return self._on_grid(functional.linear(last.norm1(tokens), weight, bias), images)

    def tokens(self, images: Float32[Tensor, "b 3 h w"]) -> Float[Tensor, "b n c"]:
        """What the first block is given: the class token and the patches, positions added."""
        require_multiples(images, self.patch)
        patches = self.network.patch_embed(images)
        rows, columns = patches.shape[1:3]
        first = self.network.cls_token.expand(len(images), -1, -1).to(patches.dtype)
        return torch.cat([first, patches.flatten(1, 2)], dim=1) + self.positions(rows, columns)

    def positions(self, rows: int, columns: int) -> Float32[Tensor, "n c"]:
        """The table of positions at another size, the class token's first; as stored only where the size is equal."""
        table: Tensor = self.network.pos_embed[0]
        side = self.sizes.grid
        if (rows, columns) == (side, side):
            return table
        with torch.autocast(table.device.type, enabled=False):
            grid = table[1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
            scale = tuple((cells + POSITION_OFFSET) / side for cells in (rows, columns))
            grid = functional.interpolate(grid, scale_factor=scale, mode="bicubic", recompute_scale_factor=False)
        return torch.cat([table[:1], grid[0].flatten(1).T])

    def _on_grid(self, tokens: Float[Tensor, "b n c"], images: Tensor) -> Float32[Tensor, "b c rows columns"]:
        """Tokens without the class token's."""
        rows, columns = (side // self.patch for side in images.shape[-2:])
        return tokens[:, 1:].float().transpose(1, 2).reshape(len(images), -1, rows, columns)


class DinoResnet(nn.Module):
    """DINO's ResNet-50: the output of one of its groups of blocks."""

    kind: ClassVar[str] = "dino_resnet50"

    def __init__(self, level: int) -> None:
        super().__init__()
        self.level, self.patch, self.channels = level, 2 ** (level + 1), 2 ** (level + 7)
        self.network = resnet50(weights=None)
        self.network.fc = nn.Identity()

    def described(self) -> dict[str, Any]:
        """What a file of its weights must tell besides them."""
        return {"kind": self.kind, "level": self.level}

    def forward(self, images: Float32[Tensor, "b 3 h w"]) -> Float32[Tensor, "b c rows columns"]:
        """Features of normalised images whose sides are multiples of the patch. Raises `ConfigError` for others."""
        require_multiples(images, self.patch)
        network = self.network
        with half_precision(images):
            features: Tensor = network.maxpool(network.relu(network.bn1(network.conv1(images))))
            for group in (network.layer1, network.layer2, network.layer3, network.layer4)[: self.level]:
                features = group(features)
        return features.float()


class TimmBackbone(nn.Module):
    """Any network that timm knows by name: its last features, tokens that are no patch left out."""

    kind: ClassVar[str] = "timm"

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.network = _timm_network(name)
        self.scale: Tensor
        self.shift: Tensor
        self.channels = int(self.network.num_features)
        self.prefix = int(getattr(self.network, "num_prefix_tokens", 0))
        self.patch = int(self.network.feature_info[-1]["reduction"])
        about: Any = getattr(self.network, "pretrained_cfg", {})
        # Some networks are trained with another mean and deviation than ImageNet's, which images come with.
        mean, deviation = (about.get(key, default) for key, default in _NORMALISATION.items())
        scale = torch.tensor(IMAGENET_DEVIATION) / torch.tensor(deviation)
        shift = (torch.tensor(IMAGENET_MEAN) - torch.tensor(mean)) / torch.tensor(deviation)
        self.register_buffer("scale", scale[:, None, None], persistent=False)
        self.register_buffer("shift", shift[:, None, None], persistent=False)

    def described(self) -> dict[str, Any]:
        """What a file of its weights must tell besides them."""
        return {"kind": self.kind, "name": self.name}

    def forward(self, images: Float32[Tensor, "b 3 h w"]) -> Float32[Tensor, "b c rows columns"]:
        """Features of normalised images whose sides are multiples of the patch. Raises `ConfigError` for others."""
        with half_precision(images):
            return self.cells(images)

    def cells(self, images: Float32[Tensor, "b 3 h w"]) -> Float32[Tensor, "b c rows columns"]:
        """The same in the precision that the caller chose, as training needs it."""
        require_multiples(images, self.patch)
        rows, columns = (side // self.patch for side in images.shape[-2:])
        features = self._features(images * self.scale + self.shift).float()
        if features.ndim == 3:
            features = features[:, self.prefix :].transpose(1, 2)
        elif features.shape[1] != self.channels:  # Swin and its kin: channels last
            features = features.permute(0, 3, 1, 2)
        return features.reshape(len(images), self.channels, rows, columns)

    def _features(self, images: Float32[Tensor, "b 3 h w"]) -> Tensor:
        try:
            features: Tensor = self.network.forward_features(images)
        except AssertionError as error:  # how timm says that a network takes one size only
            raise ConfigError(
                f"the backbone {self.name} cannot be used with images of another size: {error}"
            ) from error
        return features


Backbone = DinoVit | DinoResnet | TimmBackbone

_NORMALISATION = {"mean": IMAGENET_MEAN, "std": IMAGENET_DEVIATION}


def _timm_network(name: str) -> Any:
    """Raises `ConfigError` for a name that timm does not know."""
    import timm

    if not timm.is_model(name):
        near = get_close_matches(name, timm.list_models(), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"neither cupola nor timm {timm.__version__} knows a backbone `{name}`{hint}")
    try:
        return timm.create_model(name, pretrained=False, num_classes=0, dynamic_img_size=True)
    except TypeError:  # not a transformer with a table of positions
        return timm.create_model(name, pretrained=False, num_classes=0)


def half_precision(images: Tensor) -> AbstractContextManager[Any]:
    """Products in float16 where the images lie on a GPU; sums, norms and the result stay float32."""
    return torch.autocast(images.device.type, torch.float16, enabled=images.device.type == "cuda")


def require_multiples(images: Tensor, patch: int) -> None:
    """Raises `ConfigError` where the patch does not divide the sides of the images."""
    height, width = images.shape[-2:]
    if height % patch or width % patch or not height or not width:
        raise ConfigError(
            f"an image of {height} x {width} px does not consist of whole cells of {patch} px; resize it to multiples "
            f"of {patch}, or take a backbone with other cells"
        )
