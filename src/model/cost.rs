//! The arithmetic that a network takes, counted from its config: two operations for each multiply-and-add of
//! convolutions, linear maps and attention; what is left out is below one percent. It is what torch's
//! `FlopCounterMode` counts.

use super::config::{ClipConfig, UnetConfig, VaeConfig};

/// Operations of a 3x3 or 1x1 convolution over `pixels` outputs.
fn conv(pixels: f64, taps: usize, inputs: usize, outputs: usize) -> f64 {
    2.0 * pixels * (taps * inputs * outputs) as f64
}

fn linear(rows: f64, inputs: usize, outputs: usize) -> f64 {
    2.0 * rows * (inputs * outputs) as f64
}

/// Scores and their mix, `queries` by `keys` in `channels` over all heads.
fn attention(queries: f64, keys: f64, channels: usize) -> f64 {
    4.0 * queries * keys * channels as f64
}

fn resnet(pixels: f64, inputs: usize, outputs: usize) -> f64 {
    let shortcut = if inputs == outputs { 0.0 } else { conv(pixels, 1, inputs, outputs) };
    conv(pixels, 9, inputs, outputs) + conv(pixels, 9, outputs, outputs) + shortcut
}

/// The transformer layers of one attention of a UNet's block over `pixels`, reading `tokens` of context.
fn transformer(config: &UnetConfig, block: usize, pixels: f64, tokens: f64) -> f64 {
    let channels = config.block_out_channels[block];
    let layers = config.transformer_layers_per_block.at(block).unwrap_or(0) as f64;
    let itself = 4.0 * linear(pixels, channels, channels) + attention(pixels, pixels, channels);
    let cross = 2.0 * linear(pixels, channels, channels)
        + 2.0 * linear(tokens, config.cross_attention_dim, channels)
        + attention(pixels, tokens, channels);
    let mlp = linear(pixels, channels, 8 * channels) + linear(pixels, 4 * channels, channels);
    2.0 * linear(pixels, channels, channels) + layers * (itself + cross + mlp)
}

/// Operations of one UNet evaluation of one row: latents of `height` by `width`, a context of `tokens`.
pub fn unet(config: &UnetConfig, (height, width): (usize, usize), tokens: usize) -> f64 {
    let channels = &config.block_out_channels;
    let blocks = channels.len();
    let pixels = |block: usize| (height.div_ceil(1 << block) * width.div_ceil(1 << block)) as f64;
    let tokens = tokens as f64;
    let attends = |class: &str| class.contains("CrossAttn");
    let mut sum = conv(pixels(0), 9, config.in_channels, channels[0])
        + conv(pixels(0), 9, channels[0], config.out_channels);
    for block in 0..blocks {
        let (here, before) = (channels[block], channels[block.saturating_sub(1)]);
        for layer in 0..config.layers_per_block {
            sum += resnet(pixels(block), if layer == 0 { before } else { here }, here);
            if attends(&config.down_block_types[block]) {
                sum += transformer(config, block, pixels(block), tokens);
            }
        }
        let below = channels[(block + 1).min(blocks - 1)];
        for layer in 0..=config.layers_per_block {
            let inputs = if layer == 0 { below } else { here };
            let skip = if layer == config.layers_per_block { before } else { here };
            sum += resnet(pixels(block), inputs + skip, here);
            if attends(&config.up_block_types[blocks - 1 - block]) {
                sum += transformer(config, block, pixels(block), tokens);
            }
        }
        if block + 1 < blocks {
            sum += conv(pixels(block + 1), 9, here, here) + conv(pixels(block), 9, below, below);
        }
    }
    let last = blocks - 1;
    sum + 2.0 * resnet(pixels(last), channels[last], channels[last])
        + transformer(config, last, pixels(last), tokens)
}

/// Operations of decoding latents of `height` by `width`.
pub fn vae_decode(config: &VaeConfig, (height, width): (usize, usize)) -> f64 {
    let channels = &config.block_out_channels;
    let levels = channels.len();
    let top = channels[levels - 1];
    let pixels = |level: usize| (height * width) as f64 * 4f64.powi((levels - 1 - level) as i32);
    let coarse = pixels(levels - 1);
    let mut sum = conv(coarse, 9, config.latent_channels, top) + conv(pixels(0), 9, channels[0], 3);
    sum += 2.0 * resnet(coarse, top, top);
    if config.mid_block_add_attention {
        sum += 4.0 * linear(coarse, top, top) + attention(coarse, coarse, top);
    }
    for level in 0..levels {
        let (here, below) = (channels[level], channels[(level + 1).min(levels - 1)]);
        for layer in 0..=config.layers_per_block {
            sum += resnet(pixels(level), if layer == 0 { below } else { here }, here);
        }
        if level > 0 {
            sum += conv(pixels(level - 1), 9, here, here);
        }
    }
    sum
}

/// Operations of encoding `tokens` of text.
pub fn clip(config: &ClipConfig, tokens: usize) -> f64 {
    let (width, inner, tokens) = (config.hidden_size, config.intermediate_size, tokens as f64);
    let layer = 4.0 * linear(tokens, width, width)
        + 2.0 * linear(tokens, width, inner)
        + attention(tokens, tokens, width);
    config.num_hidden_layers as f64 * layer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{Checkpoint, Component};

    fn config<T: serde::de::DeserializeOwned>(component: Component) -> T {
        Checkpoint::DummySdxl.config(component).expect("SDXL's configs are read")
    }

    fn assert_near(got: f64, want: f64) {
        assert!((got / want - 1.0).abs() < 0.01, "{got:e} is not {want:e}");
    }

    #[test]
    fn sdxl_takes_the_operations_that_torch_counts() {
        // FlopCounterMode of torch 2.15 on diffusers 0.42's networks of these sizes.
        assert_near(unet(&config(Component::Unet), (64, 64), 77), 1.59e12);
        assert_near(vae_decode(&config(Component::Vae), (64, 64)), 2.51e12);
        assert_near(vae_decode(&config(Component::Vae), (128, 128)), 10.5e12);
    }
}
