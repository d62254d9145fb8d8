//! `easel generate`: pictures into files, with a progress bar.

use anyhow::{Context, Result, bail};
use easel::config::GenerateArgs;
use easel::output::{Format, Limits, Parameters, encode, finished, read_mask, read_picture};
use easel::pipeline::Pipeline;
use easel::request::{GenerateRequest, Options, Picture, Prompt, Seed, parse_pair};
use indicatif::{ProgressBar, ProgressStyle};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Draws what the arguments ask for and prints the files' names.
pub fn run(args: &GenerateArgs) -> Result<()> {
    let prompt = Prompt::new(args.prompt.as_str())?;
    let options = options(args)?;
    let format = args.output.as_deref().map_or(Ok(Format::Png), Format::of_path)?;
    let pipeline = Pipeline::load(&crate::prepare(&args.model)?)?;
    let request = options.resolve(prompt, pipeline.defaults(), fresh_seed())?;
    for (k, drawn) in draw(&pipeline, &request)?.iter().enumerate() {
        let k = k as u32;
        let parameters = Parameters::of(&request, pipeline.name(), k).to_text();
        let path = path(args, &request, k);
        write(&path, &encode(&finished(drawn, &request.finish), format, Some(&parameters))?)?;
        println!("{}", path.display());
    }
    Ok(())
}

/// The arguments as the request's own types, each checked by them.
fn options(args: &GenerateArgs) -> Result<Options> {
    fn parsed<T: std::str::FromStr>(text: &Option<String>) -> Result<Option<T>, T::Err> {
        text.as_deref().map(str::parse).transpose()
    }
    let pair = args.sampler.as_deref().map(parse_pair).transpose()?;
    let picture =
        |path: &PathBuf| Ok::<_, anyhow::Error>(read_picture(&read(path)?, "image", Limits::default())?);
    let mask = |path: &PathBuf| Ok::<_, anyhow::Error>(read_mask(&read(path)?, "mask", Limits::default())?);
    Ok(Options {
        negative: args.negative.as_deref().map(Prompt::negative).transpose()?,
        size: parsed(&args.size)?,
        steps: parsed(&args.steps)?,
        effort: None,
        sampler: pair.map(|(sampler, _)| sampler),
        schedule: parsed(&args.schedule)?.or(pair.and_then(|(_, schedule)| schedule)),
        guidance: parsed(&args.guidance)?,
        rescale: parsed(&args.guidance_rescale)?,
        seed: parsed(&args.seed)?,
        count: parsed(&args.n)?,
        clip_skip: parsed(&args.clip_skip)?,
        picture: args.image.as_ref().map(picture).transpose()?,
        mask: args.mask.as_ref().map(mask).transpose()?,
        strength: parsed(&args.strength)?,
    })
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))
}

/// A seed from the clock, short enough to be typed.
fn fresh_seed() -> Seed {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
    Seed(u64::from(nanos))
}

/// Draws under a progress bar, which shows itself in a terminal only.
fn draw(pipeline: &Pipeline, request: &GenerateRequest) -> Result<Vec<Picture>> {
    let bar = ProgressBar::new(0);
    bar.set_style(ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}")?);
    let pictures = pipeline.generate(request, |progress| {
        bar.set_length(u64::from(progress.images) * progress.steps as u64);
        bar.set_message(format!("image {}/{}", progress.image + 1, progress.images));
        bar.set_position((progress.image as usize * progress.steps + progress.step) as u64);
        ControlFlow::Continue(())
    });
    bar.finish_and_clear();
    Ok(pictures?)
}

/// Where image `k` goes: the name given, numbered where there are several; else named after its seed.
fn path(args: &GenerateArgs, request: &GenerateRequest, k: u32) -> PathBuf {
    let Some(path) = &args.output else {
        return PathBuf::from(format!("easel-{}.png", request.seed.image(k)));
    };
    if request.count.get() == 1 {
        return path.clone();
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let ending = path.extension().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{stem}-{}.{ending}", k + 1))
}

/// Writes a whole file or none: under another name first, so that a full disk leaves no half picture.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let part = path.with_extension("part");
    let written = std::fs::write(&part, bytes).and_then(|()| std::fs::rename(&part, path));
    if let Err(error) = written {
        let _ = std::fs::remove_file(&part);
        bail!("{} cannot be written: {error}", path.display());
    }
    Ok(())
}
