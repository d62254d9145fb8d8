//! `easel bench`: how long the parts of a model take.

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use easel::checkpoint::{Checkpoint, Component};
use easel::config::{BenchArgs, Part};
use easel::engine::{CurvePoint, MOST_ROWS, measure};
use easel::model::clip::TextEncoder;
use easel::model::config::{ClipConfig, UnetConfig, VaeConfig};
use easel::model::cost;
use easel::model::memory_taken;
use easel::model::unet::{Conditioning, Unet};
use easel::model::vae::Vae;
use easel::ops::{Isa, peak};
use easel::pipeline::{LoadOptions, Pipeline};
use easel::request::{GenerateRequest, Guidance, Options, Prompt, Seed, Size, Sizes, Steps};
use serde::Serialize;
use std::time::Instant;

/// Positions that a text encoder reads.
const TOKENS: usize = 77;

/// One line of the table.
#[derive(Debug, Serialize)]
struct Timing {
    what: &'static str,
    size: String,
    rows: usize,
    dtype: &'static str,
    /// The quickest run, in seconds.
    best_s: f64,
    /// The middle run, in seconds.
    median_s: f64,
    /// Operations a second in the quickest run, in thousand millions.
    gflops: f64,
    /// The share of the processor's measured peak in the instructions that are used; none on a GPU.
    of_peak: Option<f64>,
    /// The most memory that was taken so far, on a GPU all of it, elsewhere by the process, in MiB; none where the system
    /// does not tell.
    peak_mib: Option<u64>,
}

/// Times what the arguments ask for and prints a line for each.
pub fn run(args: &BenchArgs) -> Result<()> {
    let options = crate::prepare(&args.model)?;
    if args.curve {
        return curve(&options, args);
    }
    let peaks = if options.device.is_cpu() { peaks(args.json) } else { Vec::new() };
    let bench = Bench { checkpoint: Checkpoint::open(&options.model)?, options, args, peaks };
    if !args.json {
        println!(
            "{:<7} {:>11} {:>5} {:>5} {:>10} {:>10} {:>8} {:>8} {:>9}",
            "what", "size", "rows", "dtype", "best_s", "median_s", "gflops", "of_peak", "peak_mib"
        );
    }
    for part in &args.what {
        match part {
            Part::Unet => bench.unet()?,
            Part::Vae => bench.vae()?,
            Part::Clip => bench.clip()?,
            Part::Picture => bench.pictures()?,
        }
    }
    Ok(())
}

/// Measures and prints the peak of each set of instructions, in operations a second.
fn peaks(json: bool) -> Vec<(Isa, f64)> {
    let used = Isa::current();
    let found: Vec<_> = Isa::available().into_iter().map(|isa| (isa, peak(isa))).collect();
    for (isa, peak) in &found {
        let (name, gflops) = (isa.name(), peak / 1e9);
        if json {
            println!("{}", serde_json::json!({"peak": name, "gflops": gflops, "used": *isa == used}));
        } else {
            println!("peak {name:<10} {gflops:>8.1} gflops{}", if *isa == used { ", used" } else { "" });
        }
    }
    found
}

/// What is timed.
struct Case {
    what: &'static str,
    rows: usize,
    size: (usize, usize),
    dtype: DType,
    /// Operations of a call.
    work: f64,
}

/// Prints the cost curve that the engine schedules by.
fn curve(options: &LoadOptions, args: &BenchArgs) -> Result<()> {
    // The size that was asked for is drawn, whatever the model draws well.
    let pipeline = Pipeline::load(&LoadOptions { sizes: Some(Sizes::ANY), ..options.clone() })?;
    let size = args.size.as_ref().map(|size| size.parse()).transpose()?;
    for CurvePoint { stage, area, rows, taken } in measure(&pipeline, MOST_ROWS, size)? {
        let (stage, seconds) = (format!("{stage:?}").to_lowercase(), taken.as_secs_f64());
        let each = seconds / f64::from(rows);
        if args.json {
            println!(
                "{}",
                serde_json::json!({"stage": stage, "latents": area, "rows": rows, "seconds": seconds})
            );
        } else {
            println!("{stage:<8} {area:>6} latents {rows:>3} rows {seconds:>10.4} s {each:>10.4} s a row");
        }
    }
    Ok(())
}

struct Bench<'a> {
    checkpoint: Checkpoint,
    options: LoadOptions,
    args: &'a BenchArgs,
    /// Operations a second of each set of instructions.
    peaks: Vec<(Isa, f64)>,
}

impl Bench<'_> {
    /// Width and height of the latents.
    fn latents(&self, vae: &VaeConfig, unet: &UnetConfig) -> Result<(usize, usize)> {
        let native = unet.sample_size.unwrap_or(128);
        let Some(size) = &self.args.size else { return Ok((native, native)) };
        let size: Size = size.parse()?;
        let factor = vae.factor();
        Ok((size.width() as usize / factor, size.height() as usize / factor))
    }

    fn unet(&self) -> Result<()> {
        let config: UnetConfig = self.checkpoint.config(Component::Unet)?;
        let (width, height) = self.latents(&self.checkpoint.config(Component::Vae)?, &config)?;
        let text: ClipConfig = self.checkpoint.config(Component::TextEncoder2)?;
        let pooled = text.projection_dim.unwrap_or(text.hidden_size);
        let LoadOptions { dtype, device, .. } = &self.options;
        let unet = Unet::load(&self.checkpoint.tensors(Component::Unet, *dtype, device)?, &config, pooled)?;
        for rows in self.args.rows.iter().map(|rows| usize::from(*rows)) {
            let latents = noise((rows, height, width, config.in_channels), *dtype, device)?;
            let context = noise((rows, TOKENS, config.cross_attention_dim), *dtype, device)?;
            let pooled = noise((rows, pooled), *dtype, device)?;
            let (full_width, full_height) = (8.0 * width as f32, 8.0 * height as f32);
            let ids = vec![[full_height, full_width, 0.0, 0.0, full_height, full_width]; rows];
            let timesteps = vec![500.0; rows];
            let conditioning = Conditioning {
                timesteps: &timesteps,
                contexts: &[&context],
                pooled: &pooled,
                time_ids: &ids,
            };
            let work = rows as f64 * cost::unet(&config, (height, width), TOKENS);
            let case = Case { what: "unet", rows, size: (8 * width, 8 * height), dtype: *dtype, work };
            self.time(&case, || {
                unet.forward(&latents, &conditioning)?.to_device(&Device::Cpu)?;
                Ok(())
            })?;
        }
        Ok(())
    }

    fn vae(&self) -> Result<()> {
        let config: VaeConfig = self.checkpoint.config(Component::Vae)?;
        let (width, height) = self.latents(&config, &self.checkpoint.config(Component::Unet)?)?;
        let (dtype, device) = (self.options.vae_dtype(), &self.options.device);
        let vae = Vae::load(&self.checkpoint.tensors(Component::Vae, dtype, device)?, &config)?;
        for rows in self.args.rows.iter().map(|rows| usize::from(*rows)) {
            let latents = noise((rows, height, width, config.latent_channels), dtype, device)?;
            let work = rows as f64 * cost::vae_decode(&config, (height, width));
            let case = Case { what: "vae", rows, size: (8 * width, 8 * height), dtype, work };
            self.time(&case, || {
                vae.decode(&latents)?.to_device(&Device::Cpu)?;
                Ok(())
            })?;
        }
        Ok(())
    }

    fn clip(&self) -> Result<()> {
        let LoadOptions { dtype, device, .. } = &self.options;
        let mut encoders = Vec::new();
        let mut work = 0.0;
        for (component, projected) in [(Component::TextEncoder, false), (Component::TextEncoder2, true)] {
            let config: ClipConfig = self.checkpoint.config(component)?;
            work += cost::clip(&config, TOKENS);
            encoders.push(TextEncoder::load(
                &self.checkpoint.tensors(component, *dtype, device)?,
                &config,
                projected,
                true,
            )?);
        }
        for rows in self.args.rows.iter().map(|rows| usize::from(*rows)) {
            let ids = vec![(0..TOKENS as u32).collect::<Vec<_>>(); rows];
            let case =
                Case { what: "clip", rows, size: (TOKENS, 1), dtype: *dtype, work: rows as f64 * work };
            self.time(&case, || {
                for encoder in &encoders {
                    encoder.forward(&ids, 0)?.hidden.to_device(&Device::Cpu)?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Whole pictures drawn together, from prompt to pixels; `--rows` counts pictures.
    fn pictures(&self) -> Result<()> {
        let unet: UnetConfig = self.checkpoint.config(Component::Unet)?;
        let vae: VaeConfig = self.checkpoint.config(Component::Vae)?;
        let (width, height) = self.latents(&vae, &unet)?;
        // The size that was asked for is drawn, whatever the model draws well.
        let pipeline = Pipeline::load(&LoadOptions { sizes: Some(Sizes::ANY), ..self.options.clone() })?;
        let options = Options {
            size: Some(Size::new(8 * width as u32, 8 * height as u32)?.into()),
            steps: self.args.steps.map(|steps| Steps::new(i64::from(steps))).transpose()?,
            guidance: self.args.guidance.map(Guidance::new).transpose()?,
            ..Options::default()
        };
        let request = options.resolve(Prompt::new("a lighthouse")?, pipeline.defaults(), Seed(0))?;
        let each = pipeline.evals(&request)? as f64
            * if request.guidance.is_active() { 2.0 } else { 1.0 }
            * cost::unet(&unet, (height, width), TOKENS)
            + cost::vae_decode(&vae, (height, width));
        for rows in self.args.rows.iter().map(|rows| usize::from(*rows)) {
            let (size, dtype, work) = ((8 * width, 8 * height), self.options.dtype, rows as f64 * each);
            let case = Case { what: "picture", rows, size, dtype, work };
            self.time(&case, || draw(&pipeline, &request, rows as u32))?;
        }
        Ok(())
    }

    /// The peak of the instructions that products with weights of `dtype` use.
    fn peak(&self, dtype: DType) -> Option<f64> {
        let used = match Isa::current() {
            Isa::Avx512Bf16 if dtype != DType::BF16 => Isa::Avx512,
            isa => isa,
        };
        self.peaks.iter().find(|(isa, _)| *isa == used).map(|(_, peak)| *peak)
    }

    /// Runs `call` once uncounted, then as often as asked, and prints a line.
    fn time(&self, case: &Case, call: impl Fn() -> Result<()>) -> Result<()> {
        call()?;
        let mut seconds = Vec::new();
        for _ in 0..self.args.runs {
            let start = Instant::now();
            call()?;
            seconds.push(start.elapsed().as_secs_f64());
        }
        seconds.sort_by(f64::total_cmp);
        let (width, height) = case.size;
        let timing = Timing {
            what: case.what,
            size: format!("{width}x{height}"),
            rows: case.rows,
            dtype: case.dtype.as_str(),
            best_s: seconds[0],
            median_s: seconds[seconds.len() / 2],
            gflops: case.work / seconds[0] / 1e9,
            of_peak: self.peak(case.dtype).map(|peak| case.work / seconds[0] / peak),
            peak_mib: memory_taken(&self.options.device).map(|bytes| bytes >> 20).or_else(peak_mib),
        };
        self.print(&timing)
    }

    fn print(&self, timing: &Timing) -> Result<()> {
        if self.args.json {
            println!("{}", serde_json::to_string(timing)?);
            return Ok(());
        }
        let Timing { what, size, rows, dtype, best_s, median_s, gflops, of_peak, peak_mib } = timing;
        let of_peak = of_peak.map_or_else(|| "-".into(), |share| format!("{:.1} %", 100.0 * share));
        let memory = peak_mib.map_or_else(|| "-".into(), |mib| mib.to_string());
        println!(
            "{what:<7} {size:>11} {rows:>5} {dtype:>5} {best_s:>10.4} {median_s:>10.4} {gflops:>8.1} {of_peak:>8} {memory:>9}"
        );
        Ok(())
    }
}

/// Draws `count` pictures of `request` in common UNet calls.
fn draw(pipeline: &Pipeline, request: &GenerateRequest, count: u32) -> Result<()> {
    let conditioned = pipeline.encode_prompts(request)?;
    let start = |k| pipeline.start(request, conditioned.clone(), k);
    let mut jobs = (0..count).map(start).collect::<Result<Vec<_>, _>>()?;
    while jobs.iter().any(|job| !job.is_done()) {
        pipeline.evaluate(&mut jobs.iter_mut().collect::<Vec<_>>())?;
    }
    for job in &jobs {
        pipeline.decode(job)?;
    }
    Ok(())
}

fn noise(shape: impl Into<candle_core::Shape>, dtype: DType, device: &Device) -> Result<Tensor> {
    Ok(Tensor::randn(0f32, 1f32, shape, device)?.to_dtype(dtype)?)
}

/// The most memory that this process held at once, from Linux' own books.
fn peak_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? / 1024)
}
