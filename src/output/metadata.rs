//! The generation parameters of one picture, and A1111's text of them.
//!
//! The text is the prompt, a line that starts with `Negative prompt:`, and a last line of `Name: value` pairs
//! (`create_infotext` and `parse_generation_parameters` of AUTOMATIC1111/stable-diffusion-webui 1.10). A
//! value with a comma, colon or line break in it is a JSON string.

use crate::error::{Error, Result};
use crate::request::{
    ClipSkip, Extent, GenerateRequest, Guidance, Prompt, Rescale, SamplerKind, ScheduleKind, Seed, Size,
    Start, Steps, Strength, UnknownName, parse_pair,
};
use std::str::FromStr;

/// What starts the lines of the negative prompt.
const NEGATIVE: &str = "Negative prompt:";
/// The fewest pairs that make A1111 take a text's last line for settings and not for a prompt.
const FEWEST_SETTINGS: usize = 3;

/// What one picture was drawn with.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameters {
    /// What was asked for.
    pub prompt: Prompt,
    /// What was steered away from. A1111 does not tell an empty text from none; [`Parameters::to_text`] does.
    pub negative: Option<Prompt>,
    /// Sampler steps.
    pub steps: Steps,
    /// The sampler.
    pub sampler: SamplerKind,
    /// The schedule; `None` where a text leaves it to the sampler (A1111's `Automatic`).
    pub schedule: Option<ScheduleKind>,
    /// Classifier-free guidance.
    pub guidance: Guidance,
    /// Guidance rescale, written where it is not 0, under SD.Next's name.
    pub rescale: Rescale,
    /// The seed of this picture, not of its request.
    pub seed: Seed,
    /// Width and height in pixels of what was drawn.
    pub size: Size,
    /// The file's own width and height, where it was resampled: A1111's `Hires resize`.
    pub resized: Option<Extent>,
    /// The model's name; may be empty.
    pub model: String,
    /// How much of the schedule ran on a given picture; `None` where there was none.
    pub strength: Option<Strength>,
    /// Text encoder layers left out. A1111 counts from 1, so that its 1 is 0 here.
    pub clip_skip: ClipSkip,
}

impl Parameters {
    /// The parameters of picture `image` of `request`, drawn by `model`.
    pub fn of(request: &GenerateRequest, model: &str, image: u32) -> Self {
        let strength = match request.start {
            Start::Noise => None,
            Start::Picture { strength, .. } | Start::Inpaint { strength, .. } => Some(strength),
        };
        Self {
            prompt: request.prompt.clone(),
            negative: request.negative.clone(),
            steps: request.steps,
            sampler: request.sampler,
            schedule: Some(request.schedule),
            guidance: request.guidance,
            rescale: request.rescale,
            seed: request.seed.image(image),
            size: request.size,
            resized: Some(request.finish.extent).filter(|extent| *extent != request.size.into()),
            model: model.to_owned(),
            strength,
            clip_skip: request.clip_skip,
        }
    }

    /// A1111's text.
    ///
    /// A1111 trims each line of a prompt, drops an empty negative prompt, and splits a prompt at a line that
    /// starts with `Negative prompt:`. Where that would change a prompt, it stands a second time among the
    /// settings, as `Prompt` or `Negative prompt`; A1111 reads those last, so that they win there as in
    /// [`Parameters::parse`].
    pub fn to_text(&self) -> String {
        let negative = self.negative.as_ref().map(Prompt::as_str);
        let mut head = self.prompt.as_str().to_owned();
        if let Some(text) = negative.filter(|text| !text.is_empty()) {
            head = format!("{head}\n{NEGATIVE} {text}");
        }
        let settings: Vec<String> = self.settings(&head).iter().map(|(k, v)| format!("{k}: {v}")).collect();
        format!("{head}\n{}", settings.join(", ")).trim().to_owned()
    }

    /// The pairs of the last line, in A1111's order, quoted where need be.
    fn settings(&self, head: &str) -> Vec<(&'static str, String)> {
        let mut pairs = vec![
            ("Steps", self.steps.get().to_string()),
            ("Sampler", sampler_label(self.sampler).to_owned()),
        ];
        pairs.extend(self.schedule.map(|schedule| ("Schedule type", schedule_label(schedule).to_owned())));
        pairs.push(("CFG scale", decimal(self.guidance.get())));
        pairs.push(("Seed", self.seed.to_string()));
        pairs.push(("Size", self.size.to_string()));
        if !self.model.is_empty() {
            pairs.push(("Model", quoted(&self.model)));
        }
        pairs.extend(self.strength.map(|strength| ("Denoising strength", decimal(strength.get()))));
        if self.clip_skip != ClipSkip::default() {
            pairs.push(("Clip skip", (self.clip_skip.get() + 1).to_string()));
        }
        pairs.extend(self.resized.map(|extent| ("Hires resize", extent.to_string())));
        if self.rescale != Rescale::default() {
            pairs.push(("CFG rescale", decimal(self.rescale.get())));
        }
        pairs.extend(self.exact_prompts(head));
        pairs.push(("Version", concat!("easel ", env!("CARGO_PKG_VERSION")).to_owned()));
        pairs
    }

    /// The prompts as settings, as far as `head` does not give them back.
    fn exact_prompts(&self, head: &str) -> Vec<(&'static str, String)> {
        let (prompt, negative) = prompts(head);
        let own = self.negative.as_ref().map(Prompt::as_str);
        let prompt_survives = prompt == self.prompt.as_str();
        let mut pairs = Vec::new();
        if !prompt_survives {
            pairs.push(("Prompt", json(self.prompt.as_str())));
        }
        if let Some(text) = own.filter(|_| !prompt_survives || negative.as_deref() != own) {
            pairs.push(("Negative prompt", json(text)));
        }
        pairs
    }

    /// Reads a text that this program or A1111 wrote; settings that have no field here are passed over.
    ///
    /// # Errors
    /// If the last line holds no settings, one of steps, sampler, CFG scale, seed and size is missing, or a
    /// value is out of the bounds of its type; the error's parameter is that of the value.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        let (head, line) = text.rsplit_once('\n').unwrap_or(("", text));
        let settings = Settings::parse(line);
        if settings.0.len() < FEWEST_SETTINGS {
            return Err(missing("parameters", "settings in its last line"));
        }
        let (prompt, negative) = match (settings.get("Prompt"), settings.get("Negative prompt")) {
            (Some(prompt), negative) => (prompt.to_owned(), negative.map(str::to_owned)),
            (None, Some(negative)) => (prompts(head).0, Some(negative.to_owned())),
            (None, None) => prompts(head),
        };
        let (sampler, schedule) = settings.sampler_and_schedule()?;
        Ok(Self {
            prompt: if prompt.is_empty() { Prompt::empty() } else { Prompt::new(prompt)? },
            negative: negative.map(Prompt::negative).transpose()?,
            steps: settings.required("steps", "Steps")?,
            sampler,
            schedule,
            guidance: settings.required("guidance_scale", "CFG scale")?,
            rescale: settings.optional("CFG rescale")?.unwrap_or_default(),
            seed: settings.required("seed", "Seed")?,
            size: settings.required("size", "Size")?,
            resized: settings.resized()?,
            model: settings.get("Model").unwrap_or_default().to_owned(),
            strength: settings.optional("Denoising strength")?,
            clip_skip: settings.clip_skip()?,
        })
    }
}

/// The pairs of a text's last line.
struct Settings(Vec<(String, String)>);

impl Settings {
    /// Reads `Name: value, Name: "value"`; what fits in nowhere is passed over, as A1111 does.
    fn parse(mut line: &str) -> Self {
        let mut pairs = Vec::new();
        while let Some((before, after)) = line.split_once(':') {
            let name = before.rsplit(|c| !is_of_name(c)).next().unwrap_or_default().trim();
            line = after;
            if name.chars().nth(1).is_some() {
                let (value, rest) = first_value(after.trim_start());
                pairs.push((name.to_owned(), value));
                line = rest;
            }
        }
        Self(pairs)
    }

    /// The value of a name; the last where there are several.
    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rfind(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    fn optional<T: FromStr<Err = Error>>(&self, name: &str) -> Result<Option<T>> {
        self.get(name).map(str::parse).transpose()
    }

    fn required<T: FromStr<Err = Error>>(&self, param: &'static str, name: &str) -> Result<T> {
        self.optional(name)?.ok_or_else(|| missing(param, name))
    }

    /// The sampler, and the schedule from its own setting or, as A1111 wrote it before 1.9, from the
    /// sampler's name.
    fn sampler_and_schedule(&self) -> Result<(SamplerKind, Option<ScheduleKind>)> {
        let sampler = self.get("Sampler").ok_or_else(|| missing("sampler", "Sampler"))?;
        let (sampler, in_name) = parse_pair(sampler).map_err(|unknown| refused("sampler", &unknown))?;
        let schedule = match self.get("Schedule type") {
            None | Some("Automatic") => in_name,
            Some(name) => Some(name.parse().map_err(|unknown| refused("schedule", &unknown))?),
        };
        Ok((sampler, schedule))
    }

    /// The file's own size. A1111 writes a side of 0 where that follows from the other.
    fn resized(&self) -> Result<Option<Extent>> {
        let half_said = |size: &str| size.starts_with("0x") || size.ends_with("x0");
        self.get("Hires resize").filter(|size| !half_said(size)).map(str::parse).transpose()
    }

    fn clip_skip(&self) -> Result<ClipSkip> {
        let Some(text) = self.get("Clip skip") else { return Ok(ClipSkip::default()) };
        let counted: i64 = text.parse().map_err(|_| {
            Error::parameter("clip_skip", format!("'Clip skip' must be a whole number; got {text:.40}"))
        })?;
        ClipSkip::new(counted.saturating_sub(1))
    }
}

fn refused(param: &'static str, unknown: &UnknownName) -> Error {
    Error::parameter(param, unknown.to_string())
}

fn missing(param: &'static str, what: &str) -> Error {
    Error::parameter(param, format!("the parameters text has no {what}"))
}

/// The prompt and the negative prompt that A1111 reads from the lines above the settings.
fn prompts(head: &str) -> (String, Option<String>) {
    let (mut prompt, mut negative) = (String::new(), String::new());
    let mut is_negative = false;
    for line in head.split('\n') {
        let mut line = line.trim();
        if let Some(rest) = line.strip_prefix(NEGATIVE) {
            is_negative = true;
            line = rest.trim();
        }
        let text = if is_negative { &mut negative } else { &mut prompt };
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(line);
    }
    (prompt, (!negative.is_empty()).then_some(negative))
}

/// The value at the start of `text`, and what follows the comma after it.
fn first_value(text: &str) -> (String, &str) {
    if text.starts_with('"') {
        let mut values = serde_json::Deserializer::from_str(text).into_iter::<String>();
        let value = values.next().and_then(std::result::Result::ok);
        let rest = text.get(values.byte_offset()..).unwrap_or_default();
        match (value, rest.strip_prefix(',')) {
            (Some(value), Some(rest)) => return (value, rest),
            (Some(value), None) if rest.is_empty() => return (value, ""),
            _ => {}
        }
    }
    let (value, rest) = text.split_once(',').unwrap_or((text, ""));
    (value.trim().to_owned(), rest)
}

fn is_of_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | ' ' | '-' | '/')
}

/// A1111's quoting, and beyond it of what would not come back as it was: outer spaces, a quotation mark in
/// front.
fn quoted(value: &str) -> String {
    let special = value.contains([',', ':']) || value.contains(char::is_control);
    if special || value.starts_with('"') || value.trim() != value { json(value) } else { value.to_owned() }
}

fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A number as Python writes it: `7.0`, `6.5`.
fn decimal(value: f64) -> String {
    format!("{value:?}")
}

/// A1111's name; for DDPM, which it lacks, Forge's.
fn sampler_label(sampler: SamplerKind) -> &'static str {
    match sampler {
        SamplerKind::Euler => "Euler",
        SamplerKind::EulerAncestral => "Euler a",
        SamplerKind::Heun => "Heun",
        SamplerKind::Dpm2 => "DPM2",
        SamplerKind::Dpm2Ancestral => "DPM2 a",
        SamplerKind::Lms => "LMS",
        SamplerKind::DpmPp2sAncestral => "DPM++ 2S a",
        SamplerKind::DpmPpSde => "DPM++ SDE",
        SamplerKind::DpmPp2m => "DPM++ 2M",
        SamplerKind::DpmPp2mSde => "DPM++ 2M SDE",
        SamplerKind::DpmPp3mSde => "DPM++ 3M SDE",
        SamplerKind::Ddpm => "DDPM",
        SamplerKind::Ddim => "DDIM",
        SamplerKind::UniPc => "UniPC",
        SamplerKind::Lcm => "LCM",
    }
}

/// A1111's name; diffusers' spacings, which it lacks, in its manner.
fn schedule_label(schedule: ScheduleKind) -> &'static str {
    match schedule {
        ScheduleKind::Normal => "Normal",
        ScheduleKind::Karras => "Karras",
        ScheduleKind::Exponential => "Exponential",
        ScheduleKind::SgmUniform => "SGM Uniform",
        ScheduleKind::Simple => "Simple",
        ScheduleKind::DdimUniform => "DDIM",
        ScheduleKind::Beta => "Beta",
        ScheduleKind::Leading => "Leading",
        ScheduleKind::Trailing => "Trailing",
        ScheduleKind::Linspace => "Linspace",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{Defaults, Options, Picture, Sizes};

    fn defaults() -> Defaults {
        Defaults {
            size: Size::new(512, 512).unwrap(),
            sizes: Sizes::between(448, 640).unwrap(),
            steps: Steps::new(25).unwrap(),
            sampler: SamplerKind::EulerAncestral,
            schedule: ScheduleKind::Karras,
            guidance: Guidance::new(7.0).unwrap(),
        }
    }

    fn parameters(prompt: &str, negative: Option<&str>) -> Parameters {
        let negative = negative.map(|text| Prompt::negative(text).unwrap());
        let request = Options { negative, ..Options::default() };
        let request = request.resolve(Prompt::new(prompt).unwrap(), &defaults(), Seed(7)).unwrap();
        Parameters::of(&request, "sketch", 0)
    }

    fn refusal(text: &str) -> (Option<&'static str>, String) {
        let error = Parameters::parse(text).unwrap_err();
        (error.param(), error.message().to_owned())
    }

    #[test]
    fn the_text_is_laid_out_as_a1111_lays_it_out() {
        let mut parameters = parameters("a red apple,\non a table", Some("blurry, ugly"));
        parameters.strength = Some(Strength::new(0.6).unwrap());
        parameters.clip_skip = ClipSkip::new(1).unwrap();
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            parameters.to_text(),
            format!(
                "a red apple,\non a table\nNegative prompt: blurry, ugly\n\
                 Steps: 25, Sampler: Euler a, Schedule type: Karras, CFG scale: 7.0, Seed: 7, Size: 512x512, \
                 Model: sketch, Denoising strength: 0.6, Clip skip: 2, Version: easel {version}"
            )
        );
    }

    #[test]
    fn a_request_gives_each_of_its_pictures_its_own_seed_and_the_strength_it_used() {
        let picture = Picture::new(image::RgbImage::new(64, 64)).unwrap();
        let options = Options {
            picture: Some(picture),
            strength: Some(Strength::new(0.5).unwrap()),
            rescale: Some(Rescale::new(0.7).unwrap()),
            ..Options::default()
        };
        let request = options.resolve(Prompt::new("x").unwrap(), &defaults(), Seed(u64::MAX)).unwrap();
        let parameters = Parameters::of(&request, "m", 3);
        assert_eq!((parameters.seed, parameters.strength.map(Strength::get)), (Seed(2), Some(0.5)));
        assert_eq!((parameters.size.width(), parameters.rescale.get()), (448, 0.7));
        assert_eq!(parameters.resized.map(|extent| extent.to_string()), Some("64x64".into()));
        assert_eq!(Parameters::parse(&parameters.to_text()), Ok(parameters));
    }

    #[test]
    fn a_resampled_file_says_what_was_drawn_and_its_own_size_as_a1111_says_it() {
        let mut written = parameters("x", None);
        assert!(!written.to_text().contains("Hires"));
        written.resized = Some("1000x667".parse().unwrap());
        let text = written.to_text();
        assert!(text.contains("Size: 512x512,") && text.contains("Hires resize: 1000x667,"), "{text}");
        assert_eq!(Parameters::parse(&text), Ok(written));
        assert_eq!(Parameters::parse(&text.replace("1000x667", "1024x0")).unwrap().resized, None);
        assert_eq!(refusal(&text.replace("1000x667", "9999x9999")).0, Some("size"));
    }

    #[test]
    fn every_text_comes_back_as_it_was_written() {
        let prompts = [
            "a cat",
            "two\nlines, Steps: 5, Sampler: Euler",
            "Steps: 5, Sampler: DDIM, Seed: 3, Size: 64x64",
            " spaces around \n\n and a blank line\t",
            "\n\n  first lines blank",
            "Negative prompt: in front",
            "a\nNegative prompt: inside\nb",
            "carriage\r\nreturn",
            "\"quoted\", 'and', \\back\\slash\\",
            "\"",
            "日本語、🦀 é \u{0}\u{7f}\u{85}\u{2028}end",
            "(weights:1.2), [a:b:0.5], <lora:x:1>",
            "Prompt: a, Negative prompt: \"b\"",
        ];
        let negatives = prompts.iter().map(|text| Some(*text)).chain([None, Some(""), Some(" ")]);
        for (negative, prompt) in negatives.flat_map(|n| prompts.iter().map(move |p| (n, p))) {
            let written = parameters(prompt, negative);
            assert_eq!(Parameters::parse(&written.to_text()), Ok(written));
        }
        for model in
            ["", "plain", "a, b: c", "\"x\"", " padded ", "line\nbreak", "\"", "Steps: 9", "ünï, 日本"]
        {
            let mut written = parameters("x", None);
            model.clone_into(&mut written.model);
            assert_eq!(Parameters::parse(&written.to_text()), Ok(written));
        }
    }

    #[test]
    fn random_prompts_of_awkward_pieces_come_back_as_they_were_written() {
        let pieces = [
            "\n",
            " ",
            ",",
            ":",
            "\"",
            "\\",
            "Negative prompt:",
            "Steps: 5",
            "é",
            "日",
            "Prompt: ",
            "x",
            "\r",
        ];
        let mut state = 1_u32;
        let mut random = |below: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) as usize % below
        };
        for _ in 0..5_000 {
            let mut text = || (0..random(12)).map(|_| pieces[random(pieces.len())]).collect::<String>();
            let (prompt, negative) = (text() + "x", text());
            let negative = (random(3) > 0).then_some(negative.as_str());
            let written = parameters(&prompt, negative);
            assert_eq!(Parameters::parse(&written.to_text()), Ok(written));
        }
    }

    #[test]
    fn prompts_stand_among_the_settings_only_where_a1111_would_change_them() {
        assert!(!parameters("a\nb, Steps: 5", Some("c: d")).to_text().contains("Prompt: "));
        assert!(parameters("a ", None).to_text().contains(", Prompt: \"a \", Version"));
        assert!(parameters("a", Some("")).to_text().contains(", Negative prompt: \"\", Version"));
        assert!(!parameters("a", None).to_text().contains("egative prompt"));
    }

    #[test]
    fn values_are_quoted_where_a1111_quotes_them() {
        assert_eq!(
            ["a b", "a:b", "a,b", "a\nb", "a\"b"].map(quoted),
            ["a b", "\"a:b\"", "\"a,b\"", "\"a\\nb\"", "a\"b"]
        );
    }

    #[test]
    fn of_settings_with_one_name_the_last_counts() {
        let read =
            Parameters::parse("x\nSteps: 1, Sampler: DDIM, CFG scale: 7, Seed: 1, Size: 64x64, Seed: 2");
        assert_eq!(read.map(|read| read.seed), Ok(Seed(2)));
    }

    #[test]
    fn texts_of_a1111_old_and_new_are_read() {
        let text = "cat\nNegative prompt: dog\nSteps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7, \
                    Seed: 965400086, Size: 512x768, Model hash: 45dee52b, Lora hashes: \"a: 1, b: 2\"";
        let read = Parameters::parse(text).unwrap();
        assert_eq!((read.sampler, read.schedule), (SamplerKind::DpmPp2m, Some(ScheduleKind::Karras)));
        assert_eq!((read.prompt.as_str(), read.negative.as_ref().map(Prompt::as_str)), ("cat", Some("dog")));
        assert_eq!(
            (read.size.to_string().as_str(), read.guidance.get(), read.seed),
            ("512x768", 7.0, Seed(965_400_086))
        );
        assert_eq!((read.clip_skip.get(), read.model.as_str(), read.strength), (0, "", None));
        let text = "cat\nSteps: 20, Sampler: UniPC, Schedule type: Automatic, CFG scale: 6.5, Seed: 1, \
                    Size: 64x64, Clip skip: 2, Model: \"a, \\\"b\\\"\", Version: v1.10.1";
        let read = Parameters::parse(text).unwrap();
        assert_eq!((read.schedule, read.clip_skip.get(), read.model.as_str()), (None, 1, "a, \"b\""));
    }

    #[test]
    fn the_label_of_every_sampler_and_schedule_is_read_back_as_it() {
        for &sampler in SamplerKind::ALL {
            for &schedule in ScheduleKind::ALL {
                let written = Parameters { sampler, schedule: Some(schedule), ..parameters("x", None) };
                assert_eq!(Parameters::parse(&written.to_text()), Ok(written));
            }
        }
    }

    #[test]
    fn what_is_missing_or_out_of_bounds_is_named() {
        let whole = "x\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 64x64, Clip skip: 1";
        assert!(Parameters::parse(whole).is_ok());
        assert_eq!(refusal("just a prompt, nothing else").0, Some("parameters"));
        assert_eq!(refusal("").0, Some("parameters"));
        assert_eq!(refusal("Steps: 20, Seed: 3").0, Some("parameters"));
        assert_eq!(
            refusal(&whole.replace("Steps", "Stops")),
            (Some("steps"), "the parameters text has no Steps".into())
        );
        assert_eq!(refusal(&whole.replace(": 20", ": 5000")).0, Some("steps"));
        assert_eq!(refusal(&whole.replace("64x64", "64x65")).0, Some("size"));
        assert_eq!(refusal(&whole.replace("7,", "nan,")).0, Some("guidance_scale"));
        assert_eq!(refusal(&whole.replace("skip: 1", "skip: 0")).0, Some("clip_skip"));
        assert_eq!(refusal(&whole.replace("skip: 1", "skip: -9223372036854775808")).0, Some("clip_skip"));
        let (param, message) = refusal(&whole.replace("Euler", "Oiler"));
        assert!(param == Some("sampler") && message.contains("euler_ancestral"), "{message}");
        let long = "x".repeat(Prompt::MAX_CHARS + 1);
        assert_eq!(refusal(&whole.replacen('x', &long, 1)).0, Some("prompt"));
    }

    #[test]
    fn a_picture_drawn_without_a_prompt_tells_its_settings() {
        let text = "Steps: 20, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 64x64";
        let parameters = Parameters::parse(text).unwrap();
        assert_eq!(parameters.prompt, Prompt::empty());
        assert_eq!(Parameters::parse(&parameters.to_text()), Ok(parameters));
    }
}
