"""The model's parts: SDXL's own classes at small sizes, and the folder they are saved in."""

import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from vocabulary import LENGTH, SIZE as VOCABULARY

WIDTH_1, WIDTH_2 = 64, 128  # of the two text encoders; the UNet's context is both side by side
LATENT = 32  # the latents' side for a picture of 256


def new_vae() -> AutoencoderKL:
    return AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, sample_size=256, norm_num_groups=8, layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 64, 80, 80),
    )


def new_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=LATENT, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(96, 128, 128),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=[1, 1, 1], attention_head_dim=[3, 4, 4], cross_attention_dim=WIDTH_1 + WIDTH_2,
        use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=32,
        projection_class_embeddings_input_dim=WIDTH_2 + 6 * 32,
    )


def _text_config(width: int, layers: int, activation: str, pad: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=VOCABULARY, hidden_size=width, intermediate_size=4 * width, projection_dim=width, num_hidden_layers=layers,
        num_attention_heads=width // 32, max_position_embeddings=LENGTH, hidden_act=activation, pad_token_id=pad,
        bos_token_id=VOCABULARY - 2, eos_token_id=VOCABULARY - 1,
    )


def new_text_encoders() -> tuple[CLIPTextModel, CLIPTextModelWithProjection]:
    first = CLIPTextModel(_text_config(WIDTH_1, 3, "quick_gelu", VOCABULARY - 1))
    second = CLIPTextModelWithProjection(_text_config(WIDTH_2, 5, "gelu", 0))
    return first, second


class Conditioner(torch.nn.Module):
    """Both text encoders as SDXL uses them: last-but-one hidden states side by side, and encoder 2's pooled vector."""

    def __init__(self, first: CLIPTextModel, second: CLIPTextModelWithProjection):
        super().__init__()
        self.first, self.second = first, second

    def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """ids [B, 2, 77] -> context [B, 77, 192], pooled [B, 128]."""
        one = self.first(input_ids=ids[:, 0], output_hidden_states=True).hidden_states[-2]
        two = self.second(input_ids=ids[:, 1], output_hidden_states=True)
        return torch.cat([one, two.hidden_states[-2]], -1), two.text_embeds


class Tokens:
    """Both tokenizers: texts to ids [B, 2, 77]."""

    def __init__(self, folder: Path):
        self.both = [CLIPTokenizer.from_pretrained(folder / name) for name in ("tokenizer", "tokenizer_2")]

    def __call__(self, texts: list[str]) -> torch.Tensor:
        options = {"padding": "max_length", "max_length": LENGTH, "truncation": True, "return_tensors": "pt"}
        return torch.stack([t(texts, **options).input_ids for t in self.both], 1)


def scheduler(spacing: str) -> EulerDiscreteScheduler:
    return EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing=spacing, steps_offset=1,
    )


def save_pipeline(out: Path, data: Path, vae, unet, conditioner: Conditioner, spacing: str) -> None:
    """Writes the diffusers folder, in half precision."""
    tokenizers = [CLIPTokenizer.from_pretrained(data / name) for name in ("tokenizer", "tokenizer_2")]
    pipeline = StableDiffusionXLPipeline(
        vae=vae, unet=unet, text_encoder=conditioner.first, text_encoder_2=conditioner.second, tokenizer=tokenizers[0],
        tokenizer_2=tokenizers[1], scheduler=scheduler(spacing), force_zeros_for_empty_prompt=False,
    )
    shutil.rmtree(out, ignore_errors=True)
    pipeline.to("cpu", torch.float16).save_pretrained(out, safe_serialization=True)
