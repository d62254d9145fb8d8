//! Damaged and foreign checkpoints: each refused with a sentence that names the file and what is wrong with it.

use candle_core::{DType, Device};
use easel::error::{Error, ErrorKind};
use easel::pipeline::{LoadOptions, Pipeline};
use std::path::{Path, PathBuf};

/// A copy of a tiny model, gone when the test ends.
struct Copy(PathBuf);

impl Copy {
    fn of(model: &str, name: &str) -> Self {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny").join(model);
        let to = std::env::temp_dir().join(format!("easel-checkpoint-{}-{name}", std::process::id()));
        copy(&from, &to);
        Self(to)
    }

    fn load(&self) -> Result<Pipeline, Error> {
        let model = self.0.display().to_string();
        Pipeline::load(&LoadOptions {
            model,
            device: Device::Cpu,
            dtype: DType::F32,
            ..LoadOptions::sketch()
        })
    }

    /// The sentence with which the model is refused.
    fn refusal(&self) -> String {
        let error = self.load().expect_err("the checkpoint is damaged");
        assert_eq!(*error.kind(), ErrorKind::Checkpoint, "{error}");
        error.message().to_owned()
    }

    fn edit(&self, file: &str, change: impl Fn(&mut serde_json::Value)) {
        let path = self.0.join(file);
        let text = std::fs::read_to_string(&path).expect("the file is read");
        let mut value = serde_json::from_str(&text).expect("the file is JSON");
        change(&mut value);
        std::fs::write(path, value.to_string()).expect("the file is written");
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("the folder is made");
    for entry in std::fs::read_dir(from).expect("the folder is read") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("an entry has a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).expect("the file is copied");
        }
    }
}

const VAE: &str = "vae/diffusion_pytorch_model.safetensors";

/// Reads a safetensors file, lets `change` edit its tensors, and writes it again.
fn rewrite(path: &Path, change: impl Fn(&mut std::collections::HashMap<String, candle_core::Tensor>)) {
    let mut tensors = candle_core::safetensors::load(path, &Device::Cpu).expect("the weights are read");
    change(&mut tensors);
    candle_core::safetensors::save(&tensors, path).expect("the weights are written");
}

#[test]
fn a_missing_tensor_is_named_with_its_file() {
    let model = Copy::of("b", "missing");
    rewrite(&model.0.join(VAE), |tensors| {
        tensors.remove("decoder.conv_in.bias").expect("it was there");
    });
    let message = model.refusal();
    assert!(message.ends_with(&format!("{VAE}: the tensor 'decoder.conv_in.bias' is missing")), "{message}");
}

#[test]
fn a_tensor_of_another_shape_is_named_with_both_shapes() {
    let model = Copy::of("b", "shape");
    rewrite(&model.0.join(VAE), |tensors| {
        let short = tensors["decoder.conv_in.bias"].narrow(0, 0, 3).expect("it has more than three");
        tensors.insert("decoder.conv_in.bias".into(), short);
    });
    let message = model.refusal();
    assert!(message.contains("'decoder.conv_in.bias' has the shape [3]; the config asks for ["), "{message}");
}

#[test]
fn truncated_weights_are_told_from_foreign_ones() {
    let model = Copy::of("b", "truncated");
    let path = model.0.join(VAE);
    let bytes = std::fs::read(&path).expect("the weights are read");
    for (length, words) in [
        (0, "truncated: 0 bytes"),
        (100, "truncated: the header takes"),
        (bytes.len() - 1, "truncated: its tensors take"),
    ] {
        std::fs::write(&path, &bytes[..length]).expect("the weights are written");
        let message = model.refusal();
        assert!(message.contains(VAE) && message.contains(words), "{message}");
    }
    std::fs::write(&path, b"<html>not found, and a good deal of it</html>").expect("the weights are written");
    assert!(model.refusal().contains("no safetensors file"), "{}", model.refusal());
}

#[test]
fn missing_parts_are_named() {
    let model = Copy::of("a", "parts");
    std::fs::remove_file(model.0.join("unet/diffusion_pytorch_model-00002-of-00002.safetensors"))
        .expect("a shard");
    assert!(model.refusal().contains("the shard 'diffusion_pytorch_model-00002-of-00002.safetensors'"));
    std::fs::remove_file(model.0.join("unet/diffusion_pytorch_model.safetensors.index.json"))
        .expect("the index");
    assert!(model.refusal().contains("no weights here; looked for diffusion_pytorch_model.safetensors"));
    std::fs::write(model.0.join("unet/diffusion_pytorch_model.bin"), b"").expect("a pickle");
    assert!(model.refusal().contains("convert them to diffusion_pytorch_model.safetensors"));
    std::fs::remove_file(model.0.join("vae/config.json")).expect("a config");
    assert!(model.refusal().ends_with("vae/config.json: the file is missing"), "{}", model.refusal());
    std::fs::remove_file(model.0.join("model_index.json")).expect("the index");
    assert!(model.refusal().contains("model_index.json is missing"));
}

#[test]
fn classes_and_variants_that_are_not_built_are_refused_by_name() {
    type Change = fn(&mut serde_json::Value);
    let cases: [(&str, Change, &str); 7] = [
        ("model_index.json", |v| v["_class_name"] = "FluxPipeline".into(), "pipeline class 'FluxPipeline'"),
        (
            "unet/config.json",
            |v| v["down_block_types"][0] = "SkipDownBlock2D".into(),
            "block class 'SkipDownBlock2D'",
        ),
        ("unet/config.json", |v| v["class_embed_type"] = "timestep".into(), "class_embed_type is timestep"),
        ("unet/config.json", |v| v["time_cond_proj_dim"] = 256.into(), "time_cond_proj_dim is set"),
        ("unet/config.json", |v| v["block_out_channels"] = serde_json::json!([8]), "the number of blocks"),
        ("text_encoder/config.json", |v| v["hidden_act"] = "relu".into(), "hidden_act 'relu'"),
        ("scheduler/scheduler_config.json", |v| v["prediction_type"] = "flow".into(), "prediction_type"),
    ];
    for (k, (file, change, words)) in cases.into_iter().enumerate() {
        let model = Copy::of("b", &format!("class-{k}"));
        model.edit(file, change);
        assert!(model.refusal().contains(words), "{}", model.refusal());
    }
}

#[test]
fn a_field_of_the_wrong_type_is_named_with_its_file() {
    let model = Copy::of("b", "type");
    model.edit("vae/config.json", |value| value["latent_channels"] = "four".into());
    let message = model.refusal();
    assert!(message.contains("vae/config.json: ") && message.contains("\"four\""), "{message}");
}

#[test]
fn names_that_are_no_model_are_refused_with_what_is_known() {
    let refusal = |model: &str| {
        let options = LoadOptions {
            model: model.into(),
            device: Device::Cpu,
            dtype: DType::F32,
            ..LoadOptions::sketch()
        };
        Pipeline::load(&options).expect_err("there is no such model").message().to_owned()
    };
    assert!(refusal("nowhere/at-all").contains("known: sketch, dummy:sdxl"));
    assert!(refusal("model.ckpt").contains("can run any code"));
}
