//! Reading golden files and measuring distances.

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use easel::checkpoint::{Component, Files, Folder};
use easel::model::clip::{Encoded, TextEncoder};
use easel::model::config::{ClipConfig, UnetConfig, VaeConfig};
use easel::model::unet::{Conditioning, Unet};
use easel::model::vae::Vae;
use serde_json::Value;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::OnceLock;

/// The tiny models.
pub const MODELS: [&str; 3] = ["a", "b", "c"];

/// A tiny model and what diffusers made of it.
pub struct Golden {
    pub name: &'static str,
    pub folder: Folder,
    /// `golden.json`: settings and texts.
    pub facts: Value,
    tensors: HashMap<String, Tensor>,
}

impl Golden {
    pub fn open(name: &'static str) -> Self {
        let path = path(name);
        let tensors = candle_core::safetensors::load(path.join("golden.safetensors"), &device())
            .expect("the golden file is read");
        let facts = Files::Disk(path.clone()).json("golden.json").expect("the settings are read");
        Self { name, facts, folder: Folder::open(&path).expect("the folder is opened"), tensors }
    }

    /// Where the model lies.
    pub fn path(&self) -> PathBuf {
        path(self.name)
    }

    pub fn tensor(&self, name: &str) -> Tensor {
        self.tensors.get(name).unwrap_or_else(|| panic!("{}: no golden tensor {name}", self.name)).clone()
    }

    /// A picture tensor `[B, C, H, W]` of torch as `[B, H, W, C]`.
    pub fn picture(&self, name: &str) -> Tensor {
        self.tensor(name).permute((0, 2, 3, 1)).and_then(|t| t.contiguous()).expect("a picture has four axes")
    }

    /// The prompts whose hidden states are stored.
    pub fn text_rows(&self) -> Vec<usize> {
        let rows = self.facts["text_rows"].as_array().expect("text_rows is a list");
        rows.iter().map(|row| row.as_u64().expect("a row is a number") as usize).collect()
    }

    /// The side of a tile in pixels.
    pub fn tile_pixels(&self) -> usize {
        self.facts["tiles"]["tile_sample_min_size"].as_u64().expect("a side is a number") as usize
    }

    /// A tensor's values in order.
    pub fn values(&self, name: &str) -> Vec<f32> {
        values(&self.tensor(name))
    }
}

/// Where the networks run: on the CPU, or where `EASEL_TEST_DEVICE` says; a GPU is one thread's, so `--test-threads=1`.
pub fn device() -> Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    let name = || std::env::var("EASEL_TEST_DEVICE").unwrap_or_else(|_| "cpu".into());
    DEVICE.get_or_init(|| easel::pipeline::open_device(&name()).expect("the device opens")).clone()
}

/// `bound` on the CPU; on another device, whose libraries add in orders of their own, at least 1e-3.
pub fn bound(bound: f32) -> f32 {
    if device().is_cpu() { bound } else { bound.max(1e-3) }
}

fn path(name: &str) -> PathBuf {
    fixtures().join("tiny").join(name)
}

fn weights(golden: &Golden, component: Component, dtype: DType) -> VarBuilder<'static> {
    golden.folder.tensors(component, dtype, &device()).expect("the weights open")
}

/// What a text encoder makes of the ids of `text_rows`, `skipped` layers earlier than usual.
pub fn encode(golden: &Golden, component: Component, dtype: DType, skipped: usize) -> Encoded {
    encode_held(golden, (component, true), dtype, skipped)
}

/// [`encode`] by an encoder whose layers are held, or are not.
pub fn encode_held(
    golden: &Golden,
    (component, held): (Component, bool),
    dtype: DType,
    skipped: usize,
) -> Encoded {
    let config: ClipConfig = golden.folder.config(component).expect("the config is read");
    let (which, projected) = match component {
        Component::TextEncoder => ("ids_1", false),
        _ => ("ids_2", true),
    };
    let weights = weights(golden, component, dtype);
    let encoder = TextEncoder::load(&weights, &config, projected, held).expect("the encoder loads");
    let all = golden.tensor(which).to_dtype(DType::U32).and_then(|t| t.to_vec2::<u32>()).expect("ids");
    let ids: Vec<Vec<u32>> = golden.text_rows().into_iter().map(|row| all[row].clone()).collect();
    encoder.forward(&ids, skipped).expect("the ids encode")
}

/// The UNet's output for the inputs of `case`.
pub fn unet(golden: &Golden, case: &str, dtype: DType) -> Tensor {
    unet_under(golden, case, dtype, |context| vec![context])
}

/// [`unet`] with other contexts than those of `case`.
pub fn unet_under(
    golden: &Golden,
    case: &str,
    dtype: DType,
    contexts: impl FnOnce(Tensor) -> Vec<Tensor>,
) -> Tensor {
    let config: UnetConfig = golden.folder.config(Component::Unet).expect("the config is read");
    // Activations are f32 on the CPU, whatever the weights are.
    let typed = |tensor: Tensor| {
        tensor.to_dtype(if device().is_cpu() { DType::F32 } else { dtype }).expect("inputs are rounded")
    };
    let tensor = |name: &str| golden.tensor(&format!("{case}.{name}"));
    let (contexts, pooled) = (contexts(typed(tensor("context"))), typed(tensor("pooled")));
    let contexts: Vec<&Tensor> = contexts.iter().collect();
    let width = pooled.dim(1).expect("pooled vectors are rows");
    let unet = Unet::load(&weights(golden, Component::Unet, dtype), &config, width).expect("the UNet loads");
    let ids = tensor("time_ids").to_vec2::<f32>().expect("time ids are rows");
    let time_ids: Vec<[f32; 6]> = ids.into_iter().map(|row| row.try_into().expect("six ids")).collect();
    let timesteps = golden.values(&format!("{case}.timesteps"));
    let conditioning =
        Conditioning { timesteps: &timesteps, contexts: &contexts, pooled: &pooled, time_ids: &time_ids };
    let sample = typed(golden.picture(&format!("{case}.sample")));
    unet.forward(&sample, &conditioning).expect("it runs")
}

/// The VAE, its tiles of the golden size.
pub fn vae(golden: &Golden, dtype: DType) -> Vae {
    let mut config: VaeConfig = golden.folder.config(Component::Vae).expect("the config is read");
    config.sample_size = golden.tile_pixels();
    Vae::load(&weights(golden, Component::Vae, dtype), &config).expect("the VAE loads")
}

pub fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

pub fn values(tensor: &Tensor) -> Vec<f32> {
    let flat = tensor.to_dtype(DType::F32).and_then(|t| t.flatten_all()).expect("a tensor flattens");
    flat.to_vec1().expect("a flat tensor is a vector")
}

/// The greatest difference over the greatest magnitude of `want`.
pub fn relative_error(got: &Tensor, want: &Tensor) -> f32 {
    assert_eq!(got.dims(), want.dims(), "the shapes differ");
    let (got, want) = (values(got), values(want));
    let scale = want.iter().fold(0f32, |most, value| most.max(value.abs()));
    let worst = got.iter().zip(&want).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
    assert!(worst.is_finite(), "a value is not finite");
    worst / scale
}

/// Asserts that `got` is `want` within `bound`, relative to the greatest magnitude.
pub fn assert_close(what: &str, got: &Tensor, want: &Tensor, bound: f32) {
    let (error, bound) = (relative_error(got, want), self::bound(bound));
    assert!(error <= bound, "{what}: off by {error:e} relative, {bound:e} allowed");
}
