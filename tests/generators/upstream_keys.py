"""Names and shapes of the tensors in the authors' checkpoints, written out from the layout of their networks.

Only facts about the file format: which tensors there are. Compared with our networks in `test_medlord_convert.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

Shapes = dict[str, tuple[int, ...]]
Entry = tuple[str, tuple[int, ...]]


def _layer(name: str, *weight: int, bias: bool = True, transposed: bool = False) -> Iterator[Entry]:
    yield f"{name}.weight", weight
    if bias:
        yield f"{name}.bias", (weight[1] if transposed else weight[0],)


def _conv(name: str, inputs: int, outputs: int, kernel: int = 3) -> Iterator[Entry]:
    yield from _layer(name, outputs, inputs, kernel, kernel, kernel)


# --------------------------------------------------------------------------------------------------------- the VQ-GAN
def vqgan(channels: Sequence[int], codes: int, dim: int, res_layers: int = 2) -> Shapes:
    """Stage 1: numbered blocks, four-voxel strided kernels, the codebook's running statistics beside it."""
    return dict([*_vqgan_encoder(channels, dim, res_layers), *_vqgan_decoder(channels, dim, res_layers)]) | {
        "quantizer.quantizer.embedding.weight": (codes, dim),
        "quantizer.quantizer.ema_cluster_size": (codes,),
        "quantizer.quantizer.ema_w": (codes, dim),
    }


def _residual_unit(name: str, channels: int) -> Iterator[Entry]:
    yield from _conv(f"{name}.conv1.conv", channels, channels)
    yield from _conv(f"{name}.conv2.conv", channels, channels)


def _vqgan_encoder(channels: Sequence[int], dim: int, res_layers: int) -> Iterator[Entry]:
    block = 0
    for before, width in zip([1, *channels], channels, strict=False):
        yield from _conv(f"encoder.blocks.{block}.conv", before, width, 4)
        for _ in range(res_layers):
            block += 1
            yield from _residual_unit(f"encoder.blocks.{block}", width)
        block += 1
    yield from _conv(f"encoder.blocks.{block}.conv", channels[-1], dim)


def _vqgan_decoder(channels: Sequence[int], dim: int, res_layers: int) -> Iterator[Entry]:
    yield from _conv("decoder.blocks.0.conv", dim, channels[-1])
    block = 1
    for width, after in zip(reversed(channels), [*reversed(channels[:-1]), 1], strict=True):
        for _ in range(res_layers):
            yield from _residual_unit(f"decoder.blocks.{block}", width)
            block += 1
        yield from _layer(f"decoder.blocks.{block}.conv", width, after, 4, 4, 4, transposed=True)
        block += 1


# ---------------------------------------------------------------------------------------------- the diffusion networks
def _resnet(name: str, inputs: int, outputs: int, time: int) -> Iterator[Entry]:
    yield from _layer(f"{name}.norm1", inputs)
    yield from _conv(f"{name}.conv1.conv", inputs, outputs)
    yield from _layer(f"{name}.time_emb_proj", outputs, time)
    yield from _layer(f"{name}.norm2", outputs)
    yield from _conv(f"{name}.conv2.conv", outputs, outputs)
    if inputs != outputs:
        yield from _conv(f"{name}.skip_connection.conv", inputs, outputs, 1)


def _attention(name: str, channels: int, transformer: bool) -> Iterator[Entry]:
    """A self-attention block with its unused projection, or the transformer that with_conditioning yields."""
    yield from _layer(f"{name}.norm", channels)
    if not transformer:
        for part in ("to_q", "to_k", "to_v", "proj_attn"):
            yield from _layer(f"{name}.{part}", channels, channels)
        return
    yield from _conv(f"{name}.proj_in.conv", channels, channels, 1)
    inner = f"{name}.transformer_blocks.0"
    for attention in ("attn1", "attn2"):
        for part in ("to_q", "to_k", "to_v"):
            yield from _layer(f"{inner}.{attention}.{part}", channels, channels, bias=False)
        yield from _layer(f"{inner}.{attention}.to_out.0", channels, channels)
    yield from _layer(f"{inner}.ff.linear1", 8 * channels, channels)
    yield from _layer(f"{inner}.ff.linear2", channels, 4 * channels)
    for norm in ("norm1", "norm2", "norm3"):
        yield from _layer(f"{inner}.{norm}", channels)
    yield from _conv(f"{name}.proj_out.conv", channels, channels, 1)


def _encoder(
    channels: Sequence[int], attends: Sequence[bool], res_blocks: int, latent: int, transformer: bool
) -> Iterator[Entry]:
    """What the U-Net and the ControlNet share: input, time embedding, levels downwards, middle."""
    time = 4 * channels[0]
    yield from _conv("conv_in.conv", latent, channels[0])
    yield from _layer("time_embed.0", time, channels[0])
    yield from _layer("time_embed.2", time, time)
    for level, width in enumerate(channels):
        before = channels[max(level - 1, 0)]
        for i in range(res_blocks):
            yield from _resnet(f"down_blocks.{level}.resnets.{i}", width if i else before, width, time)
            if attends[level]:
                yield from _attention(f"down_blocks.{level}.attentions.{i}", width, transformer)
        if level < len(channels) - 1:
            yield from _conv(f"down_blocks.{level}.downsampler.op.conv", width, width)
    for part in ("resnet_1", "resnet_2"):
        yield from _resnet(f"middle_block.{part}", channels[-1], channels[-1], time)
    yield from _attention("middle_block.attention", channels[-1], transformer)


def unet(channels: Sequence[int], attends: Sequence[bool], res_blocks: int, latent: int = 8) -> Shapes:
    """The latent diffusion U-Net, whose last activation is left out, so that its last convolution is `out.1`."""
    time, levels = 4 * channels[0], len(channels)
    entries = list(_encoder(channels, attends, res_blocks, latent, transformer=False))
    above = channels[-1]
    for block, level in enumerate(reversed(range(levels))):
        width, below = channels[level], channels[max(level - 1, 0)]
        for i in range(res_blocks + 1):
            skip = below if i == res_blocks else width
            entries += _resnet(f"up_blocks.{block}.resnets.{i}", (width if i else above) + skip, width, time)
            if attends[level]:
                entries += _attention(f"up_blocks.{block}.attentions.{i}", width, transformer=False)
        if level > 0:
            entries += _conv(f"up_blocks.{block}.upsampler.conv.conv", width, width)
        above = width
    entries += _layer("out.0", channels[0])
    entries += _conv("out.1.conv", channels[0], latent)
    return dict(entries)


def controlnet(
    unet_channels: Sequence[int],
    ratio: float,
    attends: Sequence[bool],
    res_blocks: int,
    embedding: Sequence[int],
    masks: int,
    with_conditioning: bool,
    latent: int = 8,
) -> Shapes:
    """The ControlNet: a narrow encoder, the mask embedding, and projections to the U-Net's widths."""
    narrow = [int(ratio * width) for width in unet_channels]
    entries = list(_encoder(narrow, attends, res_blocks, latent, with_conditioning))
    name = "controlnet_cond_embedding"
    entries += _conv(f"{name}.conv_in.conv", masks, embedding[0])
    for i, (fine, coarse) in enumerate(zip(embedding, embedding[1:], strict=False)):
        entries += _conv(f"{name}.blocks.{2 * i}.conv", fine, fine)
        entries += _conv(f"{name}.blocks.{2 * i + 1}.conv", fine, coarse)
    entries += _conv(f"{name}.conv_out", embedding[-1], narrow[0])
    entries += _conv("controlnet_down_blocks.0", narrow[0], unet_channels[0], 1)
    index = 1
    for level, (inputs, outputs) in enumerate(zip(narrow, unet_channels, strict=True)):
        for _ in range(res_blocks + (level < len(narrow) - 1)):
            entries += _conv(f"controlnet_down_blocks.{index}", inputs, outputs, 1)
            index += 1
    entries += _conv("controlnet_mid_block", narrow[-1], unet_channels[-1], 1)
    return dict(entries)


# ------------------------------------------------------------------------------------------------------------- VolDiT
def dit(hidden: int, depth: int, patch: int, latent: int, tokens: int) -> Shapes:
    """The transformer, with its stored positions and the embedder of no classes."""
    entries = [
        ("pos_embed", (1, tokens, hidden)),
        ("y_embedder.embedding_table.weight", (0, hidden)),
        *_conv("x_embedder.proj", latent, hidden, patch),
        *_layer("t_embedder.mlp.0", hidden, 256),
        *_layer("t_embedder.mlp.2", hidden, hidden),
    ]
    for i in range(depth):
        entries += _layer(f"blocks.{i}.attn.qkv", 3 * hidden, hidden)
        entries += _layer(f"blocks.{i}.attn.proj", hidden, hidden)
        entries += _layer(f"blocks.{i}.mlp.fc1", 4 * hidden, hidden)
        entries += _layer(f"blocks.{i}.mlp.fc2", hidden, 4 * hidden)
        entries += _layer(f"blocks.{i}.adaLN_modulation.1", 6 * hidden, hidden)
    entries += _layer("final_layer.linear", patch**3 * latent, hidden)
    entries += _layer("final_layer.adaLN_modulation.1", 2 * hidden, hidden)
    return dict(entries)


def tgca(masks: int, hidden: int, depth: int, channels: Sequence[int]) -> Shapes:
    """The adapter without the transformer inside it."""
    name = "condition_embedder"
    entries: list[Entry] = [(f"adapter_scales.{i}", (1,)) for i in range(depth)]
    entries += _conv(f"{name}.conv_in.conv", masks, channels[0])
    for i, (fine, coarse) in enumerate(zip(channels, channels[1:], strict=False)):
        entries += _conv(f"{name}.blocks.{2 * i}.conv", fine, fine)
        entries += _conv(f"{name}.blocks.{2 * i + 1}.conv", fine, coarse)
    entries += _conv(f"{name}.conv_out.conv", channels[-1], hidden)
    entries += _layer("time_gate", 1, hidden)
    return dict(entries)
