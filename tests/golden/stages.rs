//! The networks one by one.
//!
//! The tolerance is 1e-4 relative to the greatest magnitude: both sides compute in f32 but add in other orders,
//! which through some forty layers leaves about 1e-6; a wrong epsilon, activation or key shows at 1e-3 and above.

use crate::support::{Golden, MODELS, assert_close, device, encode, encode_held, unet, unet_under, vae};
use candle_core::{D, DType, Tensor};
use easel::checkpoint::Component;

const TOLERANCE: f32 = 1e-4;

#[test]
fn text_encoders_give_transformers_hidden_states_and_pooled_vectors() {
    for golden in MODELS.map(Golden::open) {
        let first = encode(&golden, Component::TextEncoder, DType::F32, 0);
        let second = encode(&golden, Component::TextEncoder2, DType::F32, 0);
        let context = Tensor::cat(&[first.hidden, second.hidden], D::Minus1).expect("the widths join");
        assert_close("context", &context, &golden.tensor("text.context"), TOLERANCE);
        assert!(first.pooled.is_none(), "SDXL reads no vector of the first encoder");
        let pooled = second.pooled.expect("the encoder is projected");
        assert_close("pooled", &pooled, &golden.tensor("text.pooled"), TOLERANCE);
        let skipped = [Component::TextEncoder, Component::TextEncoder2]
            .map(|c| encode(&golden, c, DType::F32, 1).hidden);
        let context = Tensor::cat(&skipped, D::Minus1).expect("the widths join");
        assert_close("clip_skip 1", &context, &golden.tensor("text.context_skip1"), TOLERANCE);
    }
}

#[test]
fn text_encoders_whose_layers_are_read_as_needed_give_the_same_to_the_last_bit() {
    let golden = Golden::open(MODELS[0]);
    for component in [Component::TextEncoder, Component::TextEncoder2] {
        for skipped in [0, 1] {
            let [held, read] =
                [true, false].map(|held| encode_held(&golden, (component, held), DType::F32, skipped));
            assert_close("hidden", &read.hidden, &held.hidden, 0.0);
            assert_eq!(read.pooled.is_some(), held.pooled.is_some());
            for (read, held) in read.pooled.iter().zip(&held.pooled) {
                assert_close("pooled", read, held, 0.0);
            }
        }
    }
}

#[test]
fn unet_gives_diffusers_output_with_a_timestep_and_sizes_of_its_own_for_each_row() {
    for golden in MODELS.map(Golden::open) {
        for case in ["unet", "unet_odd"] {
            let got = unet(&golden, case, DType::F32);
            let what = format!("{case} of {}", golden.name);
            assert_close(&what, &got, &golden.picture(&format!("{case}.out")), TOLERANCE);
        }
    }
}

#[test]
fn rows_without_a_context_are_those_of_a_context_of_zeros() {
    for golden in MODELS.map(Golden::open) {
        let first = |context: &Tensor| context.narrow(0, 0, 1).expect("there is a first row");
        let zeros = unet_under(&golden, "unet", DType::F32, |context| {
            let others = context.narrow(0, 1, context.dim(0).expect("rows") - 1).expect("there are others");
            vec![first(&context), others.zeros_like().expect("zeros")]
        });
        let without = unet_under(&golden, "unet", DType::F32, |context| vec![first(&context)]);
        assert_close(golden.name, &without, &zeros, TOLERANCE);
        let with = golden.picture("unet.out");
        let off =
            (with - without).and_then(|x| x.abs()?.max_all()?.to_scalar::<f32>()).expect("a difference");
        assert!(off > 1e-3, "{}: the context changes the output by {off:e} alone", golden.name);
    }
}

#[test]
fn vae_encodes_and_decodes_as_diffusers_does() {
    for golden in MODELS.map(Golden::open) {
        let vae = vae(&golden, DType::F32);
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
        let vae = vae(&golden, DType::F32);
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
    let vae = vae(&golden, DType::F32);
    let latents = golden.picture("vae.latents");
    let both = vae.decode(&latents).expect("it decodes");
    for row in 0..2 {
        let alone = latents.narrow(0, row, 1).and_then(|t| t.contiguous()).expect("a row");
        let alone = crate::support::values(&vae.decode(&alone).expect("it decodes"));
        let among = crate::support::values(&both.narrow(0, row, 1).expect("a row"));
        assert!(alone == among, "row {row} depends on its company");
    }
}
