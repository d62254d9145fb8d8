//! From a prompt's text to token ids: the checkpoint's tokenizer, the weights people write with brackets, and the
//! chunks of 77 positions that the text encoders read.

pub mod chunks;
pub mod tokenizer;
pub mod vocabulary;
pub mod weights;

pub use chunks::{Chunk, Prompted, tokenize};
pub use tokenizer::PromptTokenizer;
pub use vocabulary::Pad;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Files;
    use serde::Deserialize;
    use std::collections::BTreeMap;
    use std::path::Path;

    const ROOT: &str = env!("CARGO_MANIFEST_DIR");
    /// Made by `tests/fixtures/prompt/make_prompt_golden.py` with transformers 5.23.
    const GOLDEN: &str =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/prompt/tokens.json"));

    #[derive(Deserialize)]
    struct Golden {
        texts: Vec<String>,
        tokenizers: BTreeMap<String, Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        bos: u32,
        eos: u32,
        pad: u32,
        vocab_size: usize,
        /// For each text the ids at most 77, without the filling behind the end.
        unpadded: Vec<Vec<u32>>,
    }

    fn open(name: &str) -> PromptTokenizer {
        let opened = match name {
            "bundled EndOfText" => PromptTokenizer::bundled(Pad::EndOfText),
            "bundled Exclamation" => PromptTokenizer::bundled(Pad::Exclamation),
            folder => PromptTokenizer::load(&Files::Disk(Path::new(ROOT).join(folder))),
        };
        opened.expect("the tokenizer loads")
    }

    fn golden() -> Golden {
        serde_json::from_str(GOLDEN).expect("the golden file is JSON")
    }

    #[test]
    fn ids_are_those_of_transformers_for_bundled_saved_and_older_vocabularies() {
        let Golden { texts, tokenizers } = golden();
        assert_eq!(tokenizers.len(), 6);
        for (name, case) in tokenizers {
            let tokenizer = open(&name);
            assert_eq!(
                (tokenizer.bos(), tokenizer.eos(), tokenizer.pad(), tokenizer.vocab_size()),
                (case.bos, case.eos, case.pad, case.vocab_size),
                "{name}"
            );
            for (text, want) in texts.iter().zip(&case.unpadded) {
                let ids = tokenizer.encode(text).expect("it encodes");
                let kept = &ids[..ids.len().min(chunks::CHUNK)];
                let framed: Vec<u32> = [&[case.bos], kept, &[case.eos]].concat();
                assert_eq!(&framed, want, "{name}: {text:?}");
            }
        }
    }

    #[test]
    fn a_prompt_without_brackets_gives_the_77_ids_of_transformers_and_no_weights() {
        let Golden { texts, tokenizers } = golden();
        for (name, case) in tokenizers {
            let tokenizer = open(&name);
            let plain = texts.iter().zip(&case.unpadded).filter(|(text, _)| !text.contains(['(', '[']));
            for (text, want) in plain {
                let prompted = tokenize(&tokenizer, "prompt", text).expect("it fits");
                let mut want = want.clone();
                want.resize(77, case.pad);
                assert_eq!(prompted.chunks()[0].ids, want, "{name}: {text:?}");
                assert!(!prompted.is_weighted(), "{name}: {text:?}");
            }
        }
    }

    #[test]
    fn sdxls_two_tokenizers_differ_in_their_filling_alone() {
        let ids = |pad| {
            let tokenizer = PromptTokenizer::bundled(pad).expect("the vocabulary is sound");
            let prompted = tokenize(&tokenizer, "prompt", "a photo of a cat").expect("it fits");
            prompted.chunks()[0].ids.clone()
        };
        let (first, second) = (ids(Pad::EndOfText), ids(Pad::Exclamation));
        assert_eq!(first[..7], [49406, 320, 1125, 539, 320, 2368, 49407]);
        assert_eq!(first[..7], second[..7]);
        assert_eq!((&first[7..], &second[7..]), (&[49407; 70][..], &[0; 70][..]));
    }
}
