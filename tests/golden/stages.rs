//! The networks one by one.
//!
//! The tolerance is 1e-4 relative to the greatest magnitude: both sides compute in f32 but add in other orders,
//! which through some forty layers leaves about 1e-6; a wrong epsilon, activation or key shows at 1e-3 and above.

use crate::support::{Golden, MODELS, assert_close, device};
use candle_core::{D, DType, Tensor};
use candle_nn::VarBuilder;
use easel::checkpoint::Component;
use easel::model::clip::{Encoded, TextEncoder};
use easel::model::config::{ClipConfig, UnetConfig, VaeConfig};
use easel::model::unet::{Conditioning, Unet};
use easel::model::vae::Vae;

const TOLERANCE: f32 = 1e-4;

fn weights(golden: &Golden, component: Component) -> VarBuilder<'static> {
    golden.folder.tensors(component, DType::F32, &device()).expect("the weights open")
}

fn encode(golden: &Golden, component: Component, skipped: usize) -> Encoded {
    let config: ClipConfig = golden.folder.config(component).expect("the config is read");
    let (which, projected) = match component {
        Component::TextEncoder => ("ids_1", false),
        _ => ("ids_2", true),
    };
    let encoder =
        TextEncoder::load(&weights(golden, component), &config, projected).expect("the encoder loads");
    let all = golden.tensor(which).to_dtype(DType::U32).and_then(|t| t.to_vec2::<u32>()).expect("ids");
    let rows: Vec<usize> = golden.text_rows();
    let ids: Vec<Vec<u32>> = rows.into_iter().map(|row| all[row].clone()).collect();
    encoder.forward(&ids, skipped).expect("the ids encode")
}

#[test]
fn text_encoders_give_transformers_hidden_states_and_pooled_vectors() {
    for golden in MODELS.map(Golden::open) {
        let first = encode(&golden, Component::TextEncoder, 0);
        let second = encode(&golden, Component::TextEncoder2, 0);
        let context = Tensor::cat(&[first.hidden, second.hidden], D::Minus1).expect("the widths join");
        assert_close("context", &context, &golden.tensor("text.context"), TOLERANCE);
        assert_close("pooled", &second.pooled, &golden.tensor("text.pooled"), TOLERANCE);
        let skipped = [Component::TextEncoder, Component::TextEncoder2].map(|c| encode(&golden, c, 1).hidden);
        let context = Tensor::cat(&skipped, D::Minus1).expect("the widths join");
        assert_close("clip_skip 1", &context, &golden.tensor("text.context_skip1"), TOLERANCE);
    }
}

#[test]
fn unet_gives_diffusers_output_with_a_timestep_and_sizes_of_its_own_for_each_row() {
    for golden in MODELS.map(Golden::open) {
        let config: UnetConfig = golden.folder.config(Component::Unet).expect("the config is read");
        for case in ["unet", "unet_odd"] {
            let tensor = |name: &str| golden.tensor(&format!("{case}.{name}"));
            let pooled = tensor("pooled");
            let width = pooled.dim(1).expect("pooled vectors are rows");
            let unet =
                Unet::load(&weights(&golden, Component::Unet), &config, width).expect("the UNet loads");
            let ids = tensor("time_ids").to_vec2::<f32>().expect("time ids are rows");
            let time_ids: Vec<[f32; 6]> =
                ids.into_iter().map(|row| row.try_into().expect("six ids")).collect();
            let conditioning = Conditioning {
                timesteps: &golden.values(&format!("{case}.timesteps")),
                context: &tensor("context"),
                pooled: &pooled,
                time_ids: &time_ids,
            };
            let got =
                unet.forward(&golden.picture(&format!("{case}.sample")), &conditioning).expect("it runs");
            let what = format!("{case} of {}", golden.name);
            assert_close(&what, &got, &golden.picture(&format!("{case}.out")), TOLERANCE);
        }
    }
}

fn vae(golden: &Golden) -> Vae {
    let mut config: VaeConfig = golden.folder.config(Component::Vae).expect("the config is read");
    config.sample_size = golden.tile_pixels();
    Vae::load(&weights(golden, Component::Vae), &config).expect("the VAE loads")
}

#[test]
fn vae_encodes_and_decodes_as_diffusers_does() {
    for golden in MODELS.map(Golden::open) {
        let vae = vae(&golden);
        let posterior = vae.encode(&golden.picture("vae.image")).expect("it encodes");
        assert_close("mean", &posterior.mean, &golden.picture("vae.mean"), TOLERANCE);
        assert_close("logvar", &posterior.logvar, &golden.picture("vae.logvar"), TOLERANCE);
        let decoded = vae.decode(&golden.picture("vae.latents")).expect("it decodes");
        assert_close("decoded", &decoded, &golden.picture("vae.decoded"), TOLERANCE);
    }
}

#[test]
fn tiled_decoding_lays_and_blends_tiles_as_diffusers_does() {
    for golden in MODELS.map(Golden::open) {
        let vae = vae(&golden);
        let latents = golden.picture("vae_tiled.latents");
        let tiled = vae.decode_tiled(&latents, vae.tiling()).expect("it decodes");
        assert_close("tiled", &tiled, &golden.picture("vae_tiled.decoded"), TOLERANCE);
        let whole = vae.decode(&latents).expect("it decodes");
        assert!(
            crate::support::relative_error(&whole, &tiled) > 10.0 * TOLERANCE,
            "tiling made no difference"
        );
    }
}

#[test]
fn a_row_is_the_same_to_the_last_bit_alone_and_among_others() {
    if !device().is_cpu() {
        return; // the promise is the CPU's
    }
    let golden = Golden::open("a");
    let vae = vae(&golden);
    let latents = golden.picture("vae.latents");
    let both = vae.decode(&latents).expect("it decodes");
    for row in 0..2 {
        let alone = latents.narrow(0, row, 1).and_then(|t| t.contiguous()).expect("a row");
        let alone = crate::support::values(&vae.decode(&alone).expect("it decodes"));
        let among = crate::support::values(&both.narrow(0, row, 1).expect("a row"));
        assert!(alone == among, "row {row} depends on its company");
    }
}
