//! What a tokenizer is made of, read from a checkpoint's folder or from the merges compiled in.

use crate::checkpoint::Files;
use crate::error::{Error, Result};
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use tokenizers::AddedToken;

/// OpenAI's merges; their origin and licence stand beside them.
const MERGES: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/models/clip-vocab/merges.txt"));
/// The name that begins a chunk where a folder does not say.
const START: &str = "<|startoftext|>";
/// The name that ends a chunk, and stands for the unknown, where a folder does not say.
const END: &str = "<|endoftext|>";

/// What fills a chunk behind its end, where no checkpoint says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pad {
    /// `<|endoftext|>`, as CLIP ViT-L was trained with: SDXL's first encoder.
    EndOfText,
    /// `!`, id 0, as OpenCLIP bigG was trained with: SDXL's second encoder.
    Exclamation,
}

/// The parts of a byte-pair tokenizer.
#[derive(Debug)]
pub struct Vocabulary {
    /// Each token with its id.
    pub ids: HashMap<String, u32>,
    /// The pairs to join, the first one first.
    pub merges: Vec<(String, String)>,
    /// The tokens that are no piece of text.
    pub special: Special,
}

/// The tokens with a meaning, by name.
#[derive(Debug, PartialEq, Eq)]
pub struct Special {
    /// Begins a chunk.
    pub bos: String,
    /// Ends a chunk.
    pub eos: String,
    /// Fills a chunk.
    pub pad: String,
    /// Stands for a byte that the vocabulary lacks.
    pub unknown: String,
    /// All tokens that are cut out of a text before it is split into words, with the manner of finding them.
    pub added: Vec<AddedToken>,
}

impl Vocabulary {
    /// Reads a folder that transformers saved: `tokenizer.json`, or else `vocab.json` and `merges.txt`.
    ///
    /// # Errors
    /// If none of them is there, or one cannot be read or holds something else.
    pub fn read(folder: &Files) -> Result<Self> {
        if let Some(file) = folder.json_if_there::<TokenizerFile>("tokenizer.json")? {
            let special = Special::read(folder, file.added_tokens)?;
            let merges = file.model.merges.into_iter().map(Merge::pair).collect::<Result<_>>();
            let merges = merges.map_err(|error| error.context(folder.shown("tokenizer.json")))?;
            return Ok(Self { ids: file.model.vocab, merges, special });
        }
        let ids = folder.json_if_there("vocab.json")?.ok_or_else(|| {
            Error::checkpoint(format!("{folder}: there is neither a tokenizer.json nor a vocab.json"))
        })?;
        let shown = folder.shown("merges.txt");
        let text = folder
            .read("merges.txt")?
            .ok_or_else(|| Error::checkpoint(format!("{shown}: the file is missing")))?;
        let text = str::from_utf8(&text).map_err(|error| Error::checkpoint(format!("{shown}: {error}")))?;
        let merges = pairs(text).map_err(|error| error.context(shown))?;
        Ok(Self { ids, merges, special: Special::read(folder, Vec::new())? })
    }

    /// OpenAI's vocabulary: 256 bytes, the same at the end of a word, each merge joined, then the two marks
    /// (`clip/simple_tokenizer.py` of openai/CLIP).
    ///
    /// # Errors
    /// If the merges compiled in are damaged.
    pub fn bundled(pad: Pad) -> Result<Self> {
        let merges = pairs(MERGES)?;
        let ends = byte_letters().map(|letter| format!("{letter}</w>"));
        let joined = merges.iter().map(|(a, b)| format!("{a}{b}"));
        let marks = [START, END].map(str::to_owned);
        let tokens = byte_letters().map(String::from).chain(ends).chain(joined).chain(marks);
        let ids = tokens.zip(0..).collect();
        let pad_token = match pad {
            Pad::EndOfText => None,
            Pad::Exclamation => Some(Token::Name("!".to_owned())),
        };
        let special = Special::resolve(Names { pad_token, ..Names::default() }, Vec::new());
        Ok(Self { ids, merges, special })
    }
}

impl Special {
    /// The special tokens of a folder by transformers' rules (`PreTrainedTokenizerBase._from_pretrained`): where the
    /// configuration lists its added tokens it alone counts; otherwise `special_tokens_map.json` goes before it.
    fn read(folder: &Files, saved: Vec<Described>) -> Result<Self> {
        let mut config = folder.json_if_there::<Config>("tokenizer_config.json")?.unwrap_or_default();
        if let Some(added) = config.added_tokens_decoder.take() {
            return Ok(Self::resolve(config.names, added.into_values().collect()));
        }
        let map = folder.json_if_there::<Names>("special_tokens_map.json")?.unwrap_or_default();
        Ok(Self::resolve(map.or(config.names), saved))
    }

    /// Names what is not named, and lists each token once: first those that were added, then the named ones.
    fn resolve(names: Names, added: Vec<Described>) -> Self {
        let mut added: Vec<AddedToken> = added.into_iter().map(|token| token.added(false)).collect();
        let mut name = |token: Option<Token>, otherwise: &str| {
            let token = token.unwrap_or_else(|| Token::Name(otherwise.to_owned())).added();
            let content = token.content.clone();
            if added.iter().all(|other| other.content != content) {
                added.push(token);
            }
            content
        };
        let bos = name(names.bos_token, START);
        let eos = name(names.eos_token, END);
        let unknown = name(names.unk_token, END);
        let pad = name(names.pad_token, END);
        Self { bos, eos, pad, unknown, added }
    }
}

/// `tokenizer.json`, as far as it counts.
#[derive(Deserialize)]
struct TokenizerFile {
    #[serde(default)]
    added_tokens: Vec<Described>,
    model: Model,
}

#[derive(Deserialize)]
struct Model {
    vocab: HashMap<String, u32>,
    merges: Vec<Merge>,
}

/// A merge as newer and as older versions write it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair(String, String),
    Line(String),
}

impl Merge {
    fn pair(self) -> Result<(String, String)> {
        match self {
            Self::Pair(a, b) => Ok((a, b)),
            Self::Line(line) => pair(&line),
        }
    }
}

/// `tokenizer_config.json`, as far as it counts.
#[derive(Deserialize, Default)]
struct Config {
    #[serde(flatten)]
    names: Names,
    added_tokens_decoder: Option<BTreeMap<u32, Described>>,
}

/// The named tokens of a configuration, or all of `special_tokens_map.json`.
#[derive(Deserialize, Default)]
struct Names {
    bos_token: Option<Token>,
    eos_token: Option<Token>,
    unk_token: Option<Token>,
    pad_token: Option<Token>,
}

impl Names {
    fn or(self, other: Self) -> Self {
        Self {
            bos_token: self.bos_token.or(other.bos_token),
            eos_token: self.eos_token.or(other.eos_token),
            unk_token: self.unk_token.or(other.unk_token),
            pad_token: self.pad_token.or(other.pad_token),
        }
    }
}

/// A token as a configuration writes it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Token {
    Name(String),
    Described(Described),
}

impl Token {
    fn added(self) -> AddedToken {
        match self {
            Self::Name(content) => AddedToken::from(content, true),
            Self::Described(token) => token.added(true),
        }
    }
}

/// A token with the manner of finding it in a text.
#[derive(Deserialize)]
struct Described {
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    normalized: Option<bool>,
    #[serde(default)]
    special: bool,
}

impl Described {
    fn added(self, named: bool) -> AddedToken {
        let special = named || self.special;
        AddedToken {
            content: self.content,
            single_word: self.single_word,
            lstrip: self.lstrip,
            rstrip: self.rstrip,
            normalized: self.normalized.unwrap_or(!special),
            special,
        }
    }
}

/// The letters that stand for the bytes, in OpenAI's order: those that print, then the others from U+0100 on.
fn byte_letters() -> impl Iterator<Item = char> {
    let printing = (0x21..=0x7E_u8).chain(0xA1..=0xAC).chain(0xAE..=0xFF).map(char::from);
    let others = 256 - (0x7E - 0x21 + 1) - (0xAC - 0xA1 + 1) - (0xFF - 0xAE + 1);
    printing.chain((0x100..0x100 + others).filter_map(char::from_u32))
}

/// The lines of a `merges.txt`, without its version.
fn pairs(text: &str) -> Result<Vec<(String, String)>> {
    text.lines().filter(|line| !line.starts_with("#version") && !line.is_empty()).map(pair).collect()
}

fn pair(line: &str) -> Result<(String, String)> {
    match line.split_once(' ') {
        Some((a, b)) if !b.contains(' ') => Ok((a.to_owned(), b.to_owned())),
        _ => Err(Error::checkpoint(format!("a merge must be two tokens with a space between; got '{line}'"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::prompt::PromptTokenizer;
    use std::path::PathBuf;

    /// A tokenizer that knows `a`, `b` and `ab`, in the layout of transformers 4.
    const SAVED: &str = r#"{"added_tokens": [], "post_processor": {"type": "Unheard"}, "padding": {"pad_id": 9},
        "model": {"vocab": {"a": 0, "b</w>": 1, "ab</w>": 2, "<|startoftext|>": 3, "<|endoftext|>": 4},
        "merges": ["a b</w>"]}}"#;

    /// A folder that goes when the test ends.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let path = std::env::temp_dir().join(format!("easel-vocabulary-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&path).expect("the folder can be made");
            for (file, text) in files {
                std::fs::write(path.join(file), text).expect("the file can be written");
            }
            Self(path)
        }

        fn load(&self) -> Result<PromptTokenizer> {
            PromptTokenizer::load(&Files::Disk(self.0.clone()))
        }

        fn refusal(&self) -> String {
            self.load().expect_err("the folder is damaged").message().to_owned()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).ok();
        }
    }

    fn ids(tokenizer: &PromptTokenizer) -> (u32, u32, u32, usize) {
        (tokenizer.bos(), tokenizer.eos(), tokenizer.pad(), tokenizer.vocab_size())
    }

    #[test]
    fn a_saved_tokenizer_counts_by_its_vocabulary_merges_and_special_tokens_alone() {
        let folder = Folder::new("saved", &[("tokenizer.json", SAVED)]);
        let tokenizer = folder.load().expect("it loads");
        assert_eq!(ids(&tokenizer), (3, 4, 4, 5));
        assert_eq!(
            tokenizer.encode("AB a").as_deref(),
            Ok(&[2, 4][..]),
            "what is unknown becomes the end token"
        );
    }

    #[test]
    fn the_filling_comes_from_the_configuration_or_the_map_of_special_tokens() {
        let map = r#"{"pad_token": {"content": "a"}}"#;
        let other = r#"{"pad_token": "ab</w>", "added_tokens_decoder": {}}"#;
        let pad = |files: &[(&str, &str)]| {
            let folder = Folder::new("filling", &[&[("tokenizer.json", SAVED)], files].concat());
            folder.load().map(|t| t.pad())
        };
        assert_eq!(pad(&[("tokenizer_config.json", r#"{"pad_token": "a", "bos_token": null}"#)]), Ok(0));
        assert_eq!(pad(&[("special_tokens_map.json", map)]), Ok(0));
        assert_eq!(pad(&[("tokenizer_config.json", other), ("special_tokens_map.json", map)]), Ok(2));
    }

    #[test]
    fn a_named_token_is_found_before_lower_casing_unless_it_says_otherwise() {
        let normalized =
            |json| serde_json::from_str::<Token>(json).map(|token| token.added().normalized).ok();
        assert_eq!(normalized(r#""X""#), Some(false));
        assert_eq!(normalized(r#"{"content": "X"}"#), Some(false));
        assert_eq!(normalized(r#"{"content": "X", "normalized": true, "special": false}"#), Some(true));
        let plain = serde_json::from_str::<Described>(r#"{"content": "X"}"#).map(|token| token.added(false));
        assert_eq!(plain.ok(), Some(AddedToken::from("X", false)));
    }

    #[test]
    fn a_token_beyond_the_vocabulary_widens_it() {
        let config = ("tokenizer_config.json", r#"{"pad_token": "<new>"}"#);
        let folder = Folder::new("wider", &[("tokenizer.json", SAVED), config]);
        assert_eq!(folder.load().as_ref().map(ids), Ok((3, 4, 5, 6)));
    }

    #[test]
    fn missing_files_are_named() {
        let nowhere = Folder::new("empty", &[]);
        assert!(nowhere.refusal().ends_with("there is neither a tokenizer.json nor a vocab.json"));
        assert!(nowhere.refusal().contains(&nowhere.0.display().to_string()));
        let half = Folder::new("half", &[("vocab.json", "{}")]);
        assert!(half.refusal().ends_with("merges.txt: the file is missing"), "{}", half.refusal());
    }

    #[test]
    fn damaged_files_are_named_with_what_is_wrong() {
        let cases = [
            ("tokenizer.json", "{", "tokenizer.json: EOF while parsing"),
            ("tokenizer.json", "{}", "tokenizer.json: missing field `model`"),
            ("tokenizer.json", r#"{"model": {"vocab": [["a", 1]], "merges": []}}"#, "expected a map"),
            ("tokenizer.json", r#"{"model": {"vocab": {}, "merges": ["abc"]}}"#, "space between; got 'abc'"),
            ("tokenizer.json", r#"{"model": {"vocab": {"a": 0}, "merges": ["a b"]}}"#, "out of vocabulary"),
            ("tokenizer_config.json", r#"{"pad_token": 3}"#, "tokenizer_config.json: "),
            ("special_tokens_map.json", "[]", "special_tokens_map.json: "),
        ];
        for (k, (file, text, want)) in cases.into_iter().enumerate() {
            let files = [("tokenizer.json", SAVED), (file, text)];
            let message = Folder::new(&format!("damaged-{k}"), &files).refusal();
            assert!(message.contains(want), "{message}");
        }
    }

    #[test]
    fn the_bundled_vocabulary_is_numbered_as_openai_numbers_it() {
        let Vocabulary { ids, merges, .. } = Vocabulary::bundled(Pad::EndOfText).expect("it is sound");
        assert_eq!((ids.len(), merges.len()), (49_408, 48_894));
        let known = [("!", 0), ("~", 93), ("¡", 94), ("ÿ", 187), ("Ā", 188), ("!</w>", 256), ("in", 512)];
        for (token, id) in known.into_iter().chain([("jekyll</w>", 49_405), (START, 49_406), (END, 49_407)]) {
            assert_eq!(ids.get(token), Some(&id), "{token}");
        }
    }
}
