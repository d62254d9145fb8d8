//! A checkpoint's parts joined into a [`Pipeline`].

use super::prompt::{Pad, PromptTokenizer};
use super::{Pipeline, TextTower, Training};
use crate::checkpoint::{Checkpoint, Component, SchedulerConfig, Settings};
use crate::error::{Error, Result};
use crate::model::clip::TextEncoder;
use crate::model::config::{ClipConfig, UnetConfig, VaeConfig};
use crate::model::open_gpu;
use crate::model::unet::Unet;
use crate::model::vae::Vae;
use crate::request::{Defaults, Guidance, Size, Sizes, Steps};
use crate::sampler::SpacingOptions;
use crate::sampler::{BetaSchedule, NoiseTable, TrainingSpec};
use crate::sampler::{SamplerKind, ScheduleKind};
use candle_core::{DType, Device};
use std::path::Path;

/// Where a model comes from and how it is held.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// `sketch`, `dummy:sdxl`, or the path of a diffusers folder.
    pub model: String,
    /// The device that holds the weights.
    pub device: Device,
    /// How weights and activations are stored.
    pub dtype: DType,
    /// The sizes that the model is to draw itself; none leaves it to what is known of the model.
    pub sizes: Option<Sizes>,
    /// What becomes of the text encoders once prompts are encoded.
    pub text_encoders: TextEncoders,
}

/// What becomes of the text encoders, a quarter of SDXL, while pictures are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TextEncoders {
    /// On a processor large ones are let go, and read for each new prompt; others are kept.
    #[default]
    Auto,
    /// They stay.
    Keep,
    /// Their layers are read for each new prompt, one at a time.
    Release,
}

/// Bytes of a text encoder from which on it is let go on a processor: where a picture takes long, and memory is worth more
/// than the time that its layers take to read.
const LARGE_ENCODER: usize = 64 << 20;

impl LoadOptions {
    /// Whether a text encoder's layers are held.
    fn holds(&self, config: &ClipConfig) -> bool {
        match self.text_encoders {
            TextEncoders::Keep => true,
            TextEncoders::Release => false,
            TextEncoders::Auto => {
                !self.device.is_cpu() || config.parameters() * self.dtype.size_in_bytes() < LARGE_ENCODER
            }
        }
    }

    /// How the VAE is held: as the rest, but for f16, in which SDXL's own overflows. On a GPU bf16 stands in for it, which
    /// takes a quarter of f32's time; on the CPU f32, which takes no longer.
    pub fn vae_dtype(&self) -> DType {
        match self.dtype {
            DType::F16 if self.device.is_cpu() => DType::F32,
            DType::F16 => DType::BF16,
            dtype => dtype,
        }
    }

    /// The bundled model on the CPU in f32.
    pub fn sketch() -> Self {
        Self {
            model: "sketch".into(),
            device: Device::Cpu,
            dtype: DType::F32,
            sizes: None,
            text_encoders: TextEncoders::Auto,
        }
    }
}

/// Opens the device that `--device` names: `auto`, `cpu`, `cuda` or `cuda:N`; `auto` is the first GPU where this build
/// and this machine have one.
///
/// # Errors
/// If the name is none of these, or there is no such device.
pub fn open_device(name: &str) -> Result<Device> {
    match name {
        "cpu" => Ok(Device::Cpu),
        "auto" => Ok(open_gpu(0).unwrap_or(Device::Cpu)),
        "cuda" => open_gpu(0),
        _ => match name.strip_prefix("cuda:").and_then(|ordinal| ordinal.parse().ok()) {
            Some(ordinal) => open_gpu(ordinal),
            None => Err(Error::config(format!("device must be auto, cpu, cuda or cuda:N; got '{name}'"))),
        },
    }
}

/// The type that `--dtype` names: `auto`, `f32`, `bf16` or `f16`; `auto` is f32 on the CPU and f16 on a GPU.
///
/// # Errors
/// If the name is none of these.
pub fn parse_dtype(name: &str, device: &Device) -> Result<DType> {
    match name {
        "auto" if !device.is_cpu() => Ok(DType::F16),
        "auto" | "f32" => Ok(DType::F32),
        "bf16" => Ok(DType::BF16),
        "f16" => Ok(DType::F16),
        _ => Err(Error::config(format!("dtype must be auto, f32, bf16 or f16; got '{name}'"))),
    }
}

impl Pipeline {
    /// Reads a model.
    ///
    /// # Errors
    /// If a file is missing, damaged, or of a kind that is not built; the message names file and tensor.
    pub fn load(options: &LoadOptions) -> Result<Self> {
        let checkpoint = Checkpoint::open(&options.model)?;
        let parts = Parts { checkpoint: &checkpoint, options };
        let scheduler = checkpoint.scheduler()?;
        let towers = [
            parts.tower(Component::TextEncoder, "tokenizer", Pad::EndOfText)?,
            parts.tower(Component::TextEncoder2, "tokenizer_2", Pad::Exclamation)?,
        ];
        let unet_config: UnetConfig = checkpoint.config(Component::Unet)?;
        let vae_config: VaeConfig = checkpoint.config(Component::Vae)?;
        let vae_dtype = options.vae_dtype();
        let name = checkpoint.name();
        let settings = Settings::of(&name)?.unwrap_or_default();
        let mut defaults = defaults(&scheduler, &settings, native_size(&unet_config, &vae_config))?;
        defaults.sizes = options.sizes.clone().unwrap_or(defaults.sizes);
        Ok(Self {
            unet: Unet::load(
                &parts.tensors(Component::Unet)?,
                &unet_config,
                towers[1].encoder.pooled_width()?,
            )?,
            unet_inputs: unet_config.in_channels,
            vae: Vae::load(&checkpoint.tensors(Component::Vae, vae_dtype, &options.device)?, &vae_config)?,
            training: training(&scheduler)?,
            defaults,
            zeros_for_absent_negative: checkpoint.zeros_for_absent_negative(),
            folder: checkpoint.folder().map(Path::to_owned),
            name,
            device: options.device.clone(),
            dtype: options.dtype,
            towers,
            vae_config,
            vae_dtype,
        })
    }
}

/// Reads parts of one checkpoint for one device.
struct Parts<'a> {
    checkpoint: &'a Checkpoint,
    options: &'a LoadOptions,
}

impl Parts<'_> {
    fn tensors(&self, component: Component) -> Result<candle_nn::VarBuilder<'static>> {
        self.checkpoint.tensors(component, self.options.dtype, &self.options.device)
    }

    fn tower(&self, component: Component, tokenizer: &str, pad: Pad) -> Result<TextTower> {
        let config: ClipConfig = self.checkpoint.config(component)?;
        let projected = component == Component::TextEncoder2;
        let tokenizer = match self.checkpoint.tokenizer(tokenizer) {
            Some(files) => PromptTokenizer::load(&files)?,
            None => PromptTokenizer::bundled(pad)?,
        };
        if tokenizer.vocab_size() > config.vocab_size {
            return Err(Error::checkpoint(format!(
                "{}: its tokenizer has {} tokens, its embedding only {}",
                component.folder(),
                tokenizer.vocab_size(),
                config.vocab_size
            )));
        }
        Ok(TextTower {
            tokenizer,
            encoder: TextEncoder::load(
                &self.tensors(component)?,
                &config,
                projected,
                self.options.holds(&config),
            )?,
        })
    }
}

fn training(scheduler: &SchedulerConfig) -> Result<Training> {
    let refused = |error: String| Error::checkpoint(format!("scheduler/scheduler_config.json: {error}"));
    let beta_schedule = match scheduler.beta_schedule.as_str() {
        "linear" => BetaSchedule::Linear,
        "scaled_linear" => BetaSchedule::ScaledLinear,
        "squaredcos_cap_v2" => BetaSchedule::SquaredcosCapV2,
        other => return Err(refused(format!("beta_schedule '{other}' is not supported"))),
    };
    let spec = TrainingSpec {
        beta_start: scheduler.beta_start,
        beta_end: scheduler.beta_end,
        beta_schedule,
        steps: scheduler.num_train_timesteps,
        rescale_zero_terminal_snr: scheduler.rescale_betas_zero_snr,
    };
    Ok(Training {
        table: NoiseTable::new(&spec).map_err(|error| refused(error.to_string()))?,
        spacing: SpacingOptions {
            steps_offset: scheduler.steps_offset,
            set_alpha_to_one: scheduler.set_alpha_to_one,
        },
        prediction: scheduler
            .prediction_type
            .parse()
            .map_err(|error| refused(format!("prediction_type: {error}")))?,
    })
}

/// The side that the model was trained at, in pixels; SDXL's where the config does not say.
fn native_size(unet: &UnetConfig, vae: &VaeConfig) -> Size {
    let side = (unet.sample_size.unwrap_or(128) * vae.factor()) as u32;
    Size::nearest(side, side)
}

/// Steps and guidance where neither manifest nor checkpoint names any: those of SDXL base.
const USUAL: (i64, f64) = (30, 5.0);

fn defaults(scheduler: &SchedulerConfig, settings: &Settings, native: Size) -> Result<Defaults> {
    let named = |error: String| Error::internal(format!("models/manifest.toml: {error}"));
    let sampler = match &settings.sampler {
        Some(name) => name.parse().map_err(|error| named(format!("{error}")))?,
        None => sampler_of(scheduler),
    };
    let schedule = match &settings.schedule {
        Some(name) => name.parse().map_err(|error| named(format!("{error}")))?,
        None => schedule_of(scheduler),
    };
    let size = settings.size.as_ref().map_or(Ok(native), |size| size.parse())?;
    Ok(Defaults {
        size,
        sizes: settings.sizes.as_ref().map_or_else(|| Ok(Sizes::around(size)), |sizes| sizes.parse())?,
        steps: Steps::new(settings.steps.unwrap_or(USUAL.0))?,
        sampler,
        schedule,
        guidance: Guidance::new(settings.guidance.unwrap_or(USUAL.1))?,
    })
}

/// The sampler of the scheduler's class; Euler for classes that have no twin here.
fn sampler_of(scheduler: &SchedulerConfig) -> SamplerKind {
    let stochastic = scheduler.algorithm_type.as_deref() == Some("sde-dpmsolver++");
    match scheduler.class_name.parse() {
        Ok(SamplerKind::DpmPp2m) if stochastic => SamplerKind::DpmPp2mSde,
        Ok(sampler) => sampler,
        Err(_) => {
            tracing::warn!(
                class = scheduler.class_name,
                "the checkpoint's scheduler is unknown; drawing with euler"
            );
            SamplerKind::Euler
        }
    }
}

fn schedule_of(scheduler: &SchedulerConfig) -> ScheduleKind {
    match scheduler.timestep_spacing.as_str() {
        _ if scheduler.use_karras_sigmas => ScheduleKind::Karras,
        _ if scheduler.use_exponential_sigmas => ScheduleKind::Exponential,
        _ if scheduler.use_beta_sigmas => ScheduleKind::Beta,
        "trailing" => ScheduleKind::Trailing,
        "linspace" => ScheduleKind::Linspace,
        _ => ScheduleKind::Leading,
    }
}
