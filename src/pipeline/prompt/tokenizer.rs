//! CLIP's tokenizer over a checkpoint's vocabulary: text to ids, without the ids that frame a chunk.
//!
//! Equal to `CLIPTokenizer` of transformers 5.23 (`models/clip/tokenization_clip.py`), which likewise takes only the
//! vocabulary, the merges and the special tokens from a folder and fixes the rest.

use super::vocabulary::{Pad, Special, Vocabulary};
use crate::checkpoint::Files;
use crate::error::{Error, Result};
use std::fmt;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::utils::{Lowercase, Sequence as Normalizers};
use tokenizers::normalizers::{NFC, Replace, replace::ReplacePattern};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{SplitDelimiterBehavior, Tokenizer};

/// What CLIP takes for a word.
const WORDS: &str = concat!(
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d",
    r"|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
);

/// A text encoder's tokenizer: ids of a text, and the ids that begin, end and fill its 77 positions.
pub struct PromptTokenizer {
    tokenizer: Tokenizer,
    bos: u32,
    eos: u32,
    pad: u32,
    vocab_size: usize,
}

impl PromptTokenizer {
    /// The tokenizer in a checkpoint's folder: `tokenizer.json` (as transformers 5 saves it), or `vocab.json` and
    /// `merges.txt`; the special tokens come from `tokenizer_config.json` and `special_tokens_map.json`.
    ///
    /// # Errors
    /// If a file is missing, cannot be read, or does not hold what it should; the error names the file.
    pub fn load(folder: &Files) -> Result<Self> {
        Self::build(Vocabulary::read(folder)?).map_err(|error| error.context(folder))
    }

    /// CLIP's own vocabulary, for checkpoints that bring no tokenizer. SDXL's two differ in what they fill with.
    ///
    /// # Errors
    /// If the vocabulary compiled in is damaged.
    pub fn bundled(pad: Pad) -> Result<Self> {
        Self::build(Vocabulary::bundled(pad)?)
    }

    /// The ids of `text`, with nothing before, behind or cut off.
    ///
    /// As in transformers a special token that is typed out, such as `<|endoftext|>`, becomes that token; so does a
    /// lone `!` where it is the filling token (SDXL's second tokenizer).
    ///
    /// # Errors
    /// If the vocabulary knows neither a byte of the text nor its own unknown token.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding =
            self.tokenizer.encode_fast(text, false).map_err(|e| Error::checkpoint(e.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The id that begins a chunk.
    pub fn bos(&self) -> u32 {
        self.bos
    }

    /// The id that ends a chunk.
    pub fn eos(&self) -> u32 {
        self.eos
    }

    /// The id that fills a chunk behind its end.
    pub fn pad(&self) -> u32 {
        self.pad
    }

    /// One more than the highest id: the text encoder's embedding needs at least so many rows.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn build(vocabulary: Vocabulary) -> Result<Self> {
        let Vocabulary { ids, merges, special } = vocabulary;
        let mut highest = ids.values().copied().max();
        let Special { bos, eos, pad, unknown, added } = special;
        let model = BPE::builder()
            .vocab_and_merges(ids.into_iter().collect::<tokenizers::models::bpe::Vocab>(), merges)
            .unk_token(unknown)
            .continuing_subword_prefix(String::new())
            .end_of_word_suffix("</w>".to_owned())
            .build()
            .map_err(|e| damaged(&e))?;
        let mut tokenizer = Tokenizer::new(model);
        tokenizer.with_normalizer(Some(normalizer()?)).map_err(|e| damaged(&e))?;
        tokenizer.with_pre_tokenizer(Some(pre_tokenizer()?));
        tokenizer.add_tokens(added).map_err(|e| damaged(&e))?;
        let mut id = |token: &str| {
            let id = tokenizer.token_to_id(token);
            highest = highest.max(id);
            id.ok_or_else(|| Error::checkpoint(format!("the vocabulary has no token '{token}'")))
        };
        let (bos, eos, pad) = (id(&bos)?, id(&eos)?, id(&pad)?);
        let vocab_size = highest.map_or(0, |id| id as usize + 1);
        Ok(Self { tokenizer, bos, eos, pad, vocab_size })
    }
}

impl fmt::Debug for PromptTokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bos, eos, pad, vocab_size, .. } = self;
        write!(f, "PromptTokenizer {{ bos: {bos}, eos: {eos}, pad: {pad}, vocab_size: {vocab_size} }}")
    }
}

fn damaged(cause: &dyn fmt::Display) -> Error {
    Error::checkpoint(format!("the tokenizer cannot be used: {cause}"))
}

fn normalizer() -> Result<Normalizers> {
    let spaces = Replace::new(ReplacePattern::Regex(r"\s+".to_owned()), " ").map_err(|e| damaged(&e))?;
    Ok(Normalizers::new(vec![NFC.into(), spaces.into(), Lowercase.into()]))
}

fn pre_tokenizer() -> Result<PreTokenizers> {
    let words = Split::new(SplitPattern::Regex(WORDS.to_owned()), SplitDelimiterBehavior::Removed, true)
        .map_err(|e| damaged(&e))?;
    Ok(PreTokenizers::new(vec![words.into(), ByteLevel::new(false, true, true).into()]))
}
