//! A prompt as chunks of 77 positions: a beginning, at most 75 tokens, an end, and filling.
//!
//! A prompt without brackets that fits one chunk has exactly the ids of `CLIPTokenizer(text,
//! padding="max_length", max_length=77, truncation=True)`, and of a longer one the first chunk has. Where
//! transformers cuts, the text goes on in a further chunk; a chunk ends at its 75th token, be it amid a word (A1111
//! looks back for a comma, ComfyUI for a word's start).

use super::tokenizer::PromptTokenizer;
use super::weights::{Run, sections};
use crate::error::{Error, Result};

/// Positions that a CLIP text encoder reads at once.
pub const POSITIONS: usize = 77;
/// Tokens of the text in one chunk.
pub const CHUNK: usize = POSITIONS - 2;
/// The most chunks of one prompt: 1200 tokens, some 5000 letters of English. Each is one more pass of the text
/// encoders and 77 more positions for every cross-attention to read.
pub const MAX_CHUNKS: usize = 16;
/// The largest weight either way. What lies beyond has no meaning and overflows half precision.
pub const MAX_WEIGHT: f32 = 100.0;

/// One pass of the text encoder.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunk {
    /// A token id for each of the 77 positions.
    pub ids: Vec<u32>,
    /// What each position counts for; 1 at the beginning, the end and the filling.
    pub weights: Vec<f32>,
}

/// A prompt in one tokenizer's ids: at least one chunk.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompted {
    chunks: Vec<Chunk>,
    tokens: usize,
    empty: Chunk,
}

impl Prompted {
    /// The chunks in the order of the text.
    pub fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// Tokens of the text itself: without beginnings, ends and filling.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// The chunk of the empty prompt: what weights are measured from, and what fills up a shorter prompt.
    pub fn empty(&self) -> &Chunk {
        &self.empty
    }

    /// Whether any token has a weight other than 1.
    pub fn is_weighted(&self) -> bool {
        self.chunks.iter().flat_map(|chunk| &chunk.weights).any(|&weight| weight != 1.0)
    }

    /// Adds empty chunks until there are `count`; more stay as they are.
    ///
    /// The two tokenizers of SDXL can cut one text into different numbers of chunks, so `count` must be the largest
    /// over both of them and over prompt and negative prompt.
    pub fn pad_to(&mut self, count: usize) {
        let count = count.max(self.chunks.len());
        self.chunks.resize(count, self.empty.clone());
    }
}

/// Cuts `text` into chunks with weights. A `BREAK` starts a new chunk unless the last one is still empty.
///
/// # Errors
/// Names `param` if the text needs more than [`MAX_CHUNKS`] or a weight lies beyond [`MAX_WEIGHT`].
pub fn tokenize(tokenizer: &PromptTokenizer, param: &'static str, text: &str) -> Result<Prompted> {
    let mut chunks = Vec::new();
    let mut tokens = 0;
    for section in sections(text) {
        let section = weighted(tokenizer, param, &section)?;
        tokens += section.len();
        chunks.extend(section.chunks(CHUNK).map(|part| framed(tokenizer, part)));
    }
    if chunks.len() > MAX_CHUNKS {
        let (count, most) = (chunks.len(), MAX_CHUNKS * CHUNK);
        return Err(Error::parameter(
            param,
            format!(
                "{param} has {tokens} tokens in {count} chunks; at most {most} tokens in {MAX_CHUNKS} chunks fit"
            ),
        ));
    }
    let empty = framed(tokenizer, &[]);
    if chunks.is_empty() {
        chunks.push(empty.clone());
    }
    Ok(Prompted { chunks, tokens, empty })
}

/// The tokens of a section, each with its run's weight.
fn weighted(tokenizer: &PromptTokenizer, param: &'static str, section: &[Run]) -> Result<Vec<(u32, f32)>> {
    let mut tokens = Vec::new();
    for Run { text, weight } in section {
        if text.trim().is_empty() {
            continue;
        }
        // Also refuses what is no number.
        if !(-MAX_WEIGHT..=MAX_WEIGHT).contains(weight) {
            let start: String = text.trim().chars().take(40).collect();
            return Err(Error::parameter(
                param,
                format!("{param}: weights go from -{MAX_WEIGHT} to {MAX_WEIGHT}; '{start}' has {weight}"),
            ));
        }
        tokens.extend(tokenizer.encode(text)?.into_iter().map(|id| (id, *weight)));
    }
    Ok(tokens)
}

/// A chunk of at most [`CHUNK`] tokens with its beginning, end and filling.
fn framed(tokenizer: &PromptTokenizer, tokens: &[(u32, f32)]) -> Chunk {
    let mut ids = vec![tokenizer.bos()];
    ids.extend(tokens.iter().map(|(id, _)| id));
    ids.push(tokenizer.eos());
    ids.resize(POSITIONS, tokenizer.pad());
    let mut weights = vec![1.0];
    weights.extend(tokens.iter().map(|(_, weight)| weight));
    weights.resize(POSITIONS, 1.0);
    Chunk { ids, weights }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::prompt::vocabulary::Pad;

    const CAT: u32 = 2368;
    const DOG: u32 = 1929;
    const START: u32 = 49406;
    const END: u32 = 49407;

    fn tokenizer() -> PromptTokenizer {
        PromptTokenizer::bundled(Pad::Exclamation).expect("the vocabulary is sound")
    }

    fn prompted(text: &str) -> Prompted {
        tokenize(&tokenizer(), "prompt", text).expect("it fits")
    }

    fn refusal(param: &'static str, text: &str) -> String {
        let error = tokenize(&tokenizer(), param, text).expect_err("it is out of bounds");
        assert_eq!(error.param(), Some(param));
        error.message().to_owned()
    }

    #[test]
    fn each_token_carries_the_weight_of_its_brackets_and_the_frame_carries_1() {
        let prompted = prompted("cat (dog cat:1.5) [dog] (!:2)");
        let Chunk { ids, weights } = &prompted.chunks()[0];
        assert_eq!(ids[..8], [START, CAT, DOG, CAT, DOG, 0, END, 0]);
        assert_eq!(weights[..8], [1.0, 1.0, 1.5, 1.5, (1.0 / 1.1_f64) as f32, 2.0, 1.0, 1.0]);
        assert!(ids[7..].iter().all(|&id| id == 0) && weights[7..].iter().all(|&weight| weight == 1.0));
        assert_eq!((ids.len(), weights.len()), (77, 77));
        assert!(prompted.is_weighted());
    }

    #[test]
    fn the_76th_token_starts_a_chunk_with_a_frame_of_its_own() {
        let full = prompted(&"cat ".repeat(75));
        assert_eq!(full.chunks().len(), 1);
        assert_eq!((full.chunks()[0].ids[75], full.chunks()[0].ids[76]), (CAT, END));
        let over = prompted(&format!("{}(dog:2)", "cat ".repeat(75)));
        assert_eq!(over.chunks().len(), 2);
        assert_eq!(over.chunks()[0], full.chunks()[0]);
        assert_eq!(over.chunks()[1].ids[..4], [START, DOG, END, 0]);
        assert_eq!(over.chunks()[1].weights[..3], [1.0, 2.0, 1.0]);
    }

    #[test]
    fn tokens_are_counted_without_their_frame_and_brackets() {
        let counts =
            ["", "cat", "cat (dog cat:1.5) [dog]", "cat BREAK dog"].map(|text| prompted(text).tokens());
        assert_eq!(counts, [0, 1, 4, 2]);
        assert_eq!(prompted(&"cat ".repeat(200)).tokens(), 200);
    }

    #[test]
    fn a_break_starts_a_chunk_unless_the_last_one_is_empty() {
        let first = |text: &str| prompted(text).chunks().iter().map(|c| c.ids[1]).collect::<Vec<_>>();
        assert_eq!(first("cat BREAK dog"), [CAT, DOG]);
        assert_eq!(first("BREAK cat BREAK BREAK () BREAK dog BREAK"), [CAT, DOG]);
        assert_eq!(first("BREAK"), [END]);
    }

    #[test]
    fn the_empty_prompt_is_one_chunk_and_fills_up_shorter_prompts() {
        let empty = prompted("");
        assert_eq!(empty.chunks(), std::slice::from_ref(empty.empty()));
        assert_eq!(empty.empty().ids[..3], [START, END, 0]);
        let mut short = prompted("cat");
        short.pad_to(3);
        assert_eq!(short.chunks().len(), 3);
        assert_eq!((short.chunks()[0].ids[1], &short.chunks()[2]), (CAT, empty.empty()));
        short.pad_to(1);
        assert_eq!(short.chunks().len(), 3);
        assert_eq!(prompted("(((   [").chunks(), empty.chunks());
    }

    #[test]
    fn a_prompt_of_too_many_chunks_is_refused_with_its_tokens_and_the_bound() {
        assert_eq!(prompted(&"cat ".repeat(1200)).chunks().len(), 16);
        assert_eq!(
            refusal("negative_prompt", &"cat ".repeat(1201)),
            "negative_prompt has 1201 tokens in 17 chunks; at most 1200 tokens in 16 chunks fit"
        );
        assert_eq!(
            refusal("prompt", &"cat BREAK ".repeat(17)),
            "prompt has 17 tokens in 17 chunks; at most 1200 tokens in 16 chunks fit"
        );
    }

    #[test]
    fn a_weight_without_measure_is_refused_with_its_text() {
        assert_eq!(prompted("(cat:-100)").chunks()[0].weights[1], -100.0);
        assert_eq!(
            refusal("prompt", "a (cat:100.5)"),
            "prompt: weights go from -100 to 100; 'cat' has 100.5"
        );
        let huge = format!("((cat:0):{})", "9".repeat(400));
        assert_eq!(refusal("prompt", &huge), "prompt: weights go from -100 to 100; 'cat' has NaN");
    }

    #[test]
    fn the_longest_prompts_of_the_worst_kinds_are_answered() {
        for text in ["(", "(a", "a", ":1.", "(a)b", "\\", "BREAK ", "İ"] {
            let text: String = text.chars().cycle().take(32_000).collect();
            let answer = tokenize(&tokenizer(), "prompt", &text);
            assert!(
                answer.map_or_else(|e| e.param() == Some("prompt"), |p| p.chunks().len() == 1),
                "{text:.8}"
            );
        }
    }
}
