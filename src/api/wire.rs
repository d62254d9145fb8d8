//! The fields of the request bodies: the one table behind the OpenAPI document and docs/api.md.

mod schema;

pub(super) use schema::{ImageEdit, ImageEditJson, ImageGeneration, ImageVariation, StreamFrame};

use crate::request::{ClipSkip, Count, Prompt, Steps};

/// A body that a route reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// `POST /v1/images/generations`, JSON.
    Generation,
    /// `POST /v1/images/edits`, multipart.
    EditForm,
    /// `POST /v1/images/edits`, JSON.
    EditJson,
    /// `POST /v1/images/variations`, multipart.
    Variation,
}

use Body::{EditForm, EditJson, Generation, Variation};

const DRAWN: &[Body] = &[Generation, EditForm, EditJson];
const ALL: [Body; 4] = [Generation, EditForm, EditJson, Variation];
const EDITS: &[Body] = &[EditForm, EditJson];
const PICTURES: &[Body] = &[EditForm, EditJson, Variation];

/// What a field may hold. Every field may be null as well, which is as good as absent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    /// Any text up to a number of characters.
    Text(usize),
    /// Any text.
    Words,
    /// One of some words.
    Choice(&'static [&'static str]),
    /// A sampler's name.
    Sampler,
    /// A schedule's name.
    Schedule,
    /// `WIDTHxHEIGHT` or `auto`.
    Size,
    /// A whole number within bounds.
    Whole(u64, u64),
    /// A number within bounds.
    Number(f64, f64),
    /// 0, or a number from 1 to a bound.
    Guidance,
    /// A number from 0.001 to 1.
    Share,
    /// True or false.
    Flag,
    /// A picture's file.
    File,
    /// A list of references to pictures.
    References,
    /// A reference to a picture.
    Reference,
}

/// What becomes of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is required, and used.
    Required,
    /// It is used.
    Used,
    /// It is checked, changes nothing, and is named in `easel-ignored`; a value that is what happens anyway is not named.
    Ignored,
}

/// A field of one or more bodies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    /// OpenAI's name, or SDXL's usual one where OpenAI has none.
    pub name: &'static str,
    /// Other names that mean the same.
    pub aliases: &'static [&'static str],
    /// The bodies that have it.
    pub on: &'static [Body],
    /// What it may hold.
    pub kind: Kind,
    /// What becomes of it.
    pub fate: Fate,
    /// What it does.
    pub about: &'static str,
}

/// A field under one name.
const fn field(
    name: &'static str,
    on: &'static [Body],
    kind: Kind,
    fate: Fate,
    about: &'static str,
) -> Field {
    Field { name, aliases: &[], on, kind, fate, about }
}

/// Every field of every body.
pub(super) const FIELDS: &[Field] = &[
    field(
        "prompt",
        DRAWN,
        Kind::Text(Prompt::MAX_CHARS),
        Fate::Required,
        "What to draw; `(word:1.2)` and `[word]` weigh words, and longer prompts than 77 tokens are read whole",
    ),
    field(
        "image",
        &[EditForm, Variation],
        Kind::File,
        Fate::Required,
        "The picture to start from: PNG, JPEG or WebP, up to 50 MB; `image[]` means the same",
    ),
    field(
        "images",
        &[EditJson],
        Kind::References,
        Fate::Required,
        "The picture to start from, by `image_url` (a data URL; http(s) where the server's settings allow it)",
    ),
    field(
        "mask",
        &[EditForm],
        Kind::File,
        Fate::Used,
        "Where to draw: the transparent part of a PNG of the picture's size",
    ),
    field(
        "mask",
        &[EditJson],
        Kind::Reference,
        Fate::Used,
        "Where to draw: the transparent part of a PNG of the picture's size",
    ),
    field(
        "model",
        &ALL,
        Kind::Words,
        Fate::Used,
        "The resident model's name or an alias of it; any other is 404",
    ),
    field(
        "n",
        &ALL,
        Kind::Whole(Count::MIN as u64, Count::MAX as u64),
        Fate::Used,
        "How many pictures; picture k is drawn from seed + k",
    ),
    field(
        "size",
        &ALL,
        Kind::Size,
        Fate::Used,
        "Width and height in pixels; a size that the model does not draw well is drawn near it and resampled",
    ),
    field(
        "quality",
        &ALL,
        Kind::Choice(&["auto", "standard", "hd", "low", "medium", "high", "xhigh", "max"]),
        Fate::Used,
        "Chooses the number of steps where `steps` does not",
    ),
    field(
        "response_format",
        &ALL,
        Kind::Choice(&["url", "b64_json"]),
        Fate::Used,
        "A link that lives an hour, or the file in base64; streams always carry base64",
    ),
    field(
        "output_format",
        &ALL,
        Kind::Choice(&["png", "jpeg", "webp"]),
        Fate::Used,
        "What a picture is written as",
    ),
    field(
        "output_compression",
        &ALL,
        Kind::Whole(0, 100),
        Fate::Used,
        "Quality of JPEG and WebP; 100 writes WebP without loss, and PNG never loses any",
    ),
    field("stream", DRAWN, Kind::Flag, Fate::Used, "Whether to answer with server-sent events"),
    field("partial_images", DRAWN, Kind::Whole(0, 3), Fate::Used, "How many previews a stream brings"),
    field(
        "input_fidelity",
        EDITS,
        Kind::Choice(&["low", "high"]),
        Fate::Used,
        "How closely to keep to the picture where `strength` does not say",
    ),
    field(
        "background",
        &ALL,
        Kind::Choice(&["auto", "opaque", "transparent"]),
        Fate::Ignored,
        "Pictures are opaque; `transparent` is named as ignored",
    ),
    field("moderation", &ALL, Kind::Choice(&["auto", "low"]), Fate::Ignored, "Nothing is moderated"),
    field("style", &ALL, Kind::Choice(&["vivid", "natural"]), Fate::Ignored, "Say it in the prompt"),
    field("user", &ALL, Kind::Words, Fate::Ignored, "Callers are told apart by their keys"),
    field("negative_prompt", &ALL, Kind::Text(Prompt::MAX_CHARS), Fate::Used, "What to steer away from"),
    Field {
        aliases: &["num_inference_steps"],
        ..field("steps", &ALL, Kind::Whole(Steps::MIN as u64, Steps::MAX as u64), Fate::Used, "Sampler steps")
    },
    Field {
        aliases: &["cfg_scale"],
        ..field(
            "guidance_scale",
            &ALL,
            Kind::Guidance,
            Fate::Used,
            "How closely to follow the prompt; 0 and 1 are not at all",
        )
    },
    field(
        "guidance_rescale",
        &ALL,
        Kind::Number(0.0, 1.0),
        Fate::Used,
        "How far the guided prediction is scaled back to the spread of the unguided one",
    ),
    field(
        "seed",
        &ALL,
        Kind::Whole(0, u64::MAX),
        Fate::Used,
        "The first picture's seed; the answer's `easel-seed` header tells it",
    ),
    field("sampler", &ALL, Kind::Sampler, Fate::Used, "The method that integrates the noise away"),
    Field {
        aliases: &["scheduler"],
        ..field("schedule", &ALL, Kind::Schedule, Fate::Used, "The noise levels that the sampler visits")
    },
    field(
        "clip_skip",
        &ALL,
        Kind::Whole(ClipSkip::MIN as u64, ClipSkip::MAX as u64),
        Fate::Used,
        "Layers of the text encoders to leave out beyond SDXL's own one",
    ),
    field("strength", PICTURES, Kind::Share, Fate::Used, "How much of the picture to draw anew"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn values(kind: Kind) -> String {
        match kind {
            Kind::Text(most) => format!("text, up to {most} characters"),
            Kind::Words => "text".into(),
            Kind::Choice(words) => format!("`{}`", words.join("`, `")),
            Kind::Sampler => "a sampler's name, ComfyUI's, A1111's or diffusers'".into(),
            Kind::Schedule => "a schedule's name".into(),
            Kind::Size => "`WIDTHxHEIGHT`, each from 32 to 4096, or `auto`".into(),
            Kind::Whole(least, most) => format!("a whole number, {least} to {most}"),
            Kind::Number(least, most) => format!("a number, {least} to {most}"),
            Kind::Guidance => "0, or a number from 1 to 100".into(),
            Kind::Share => "a number from 0.001 to 1".into(),
            Kind::Flag => "`true`, `false`".into(),
            Kind::File => "a file".into(),
            Kind::Reference => "`{\"image_url\": ...}`".into(),
            Kind::References => "a list of one `{\"image_url\": ...}`".into(),
        }
    }

    fn fate(fate: Fate) -> &'static str {
        match fate {
            Fate::Required => "required",
            Fate::Used => "used",
            Fate::Ignored => "ignored",
        }
    }

    /// The table as docs/api.md has it.
    fn table() -> String {
        let mut table = String::from(
            "| field | generations | edits (form) | edits (JSON) | variations | values | what it does |\n\
             |---|---|---|---|---|---|---|\n",
        );
        for field in FIELDS {
            let names = [&[field.name], field.aliases].concat().join("`, `");
            let on = ALL.map(|body| if field.on.contains(&body) { fate(field.fate) } else { "–" });
            let row =
                format!("| `{names}` | {} | {} | {} |\n", on.join(" | "), values(field.kind), field.about);
            table.push_str(&row);
        }
        table
    }

    #[test]
    fn the_docs_have_this_table() {
        let docs = include_str!("../../docs/api.md");
        assert!(docs.contains(&table()), "docs/api.md must have this table:\n{}", table());
    }

    #[test]
    fn a_body_has_each_name_once() {
        for body in ALL {
            let on = |field: &&Field| field.on.contains(&body);
            let mut names: Vec<&str> =
                FIELDS.iter().filter(on).flat_map(|field| [&[field.name], field.aliases].concat()).collect();
            let all = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), all, "{body:?}");
        }
    }
}
