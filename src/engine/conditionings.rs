//! Conditionings that were made before, by what they were made from: bounded by their bytes, the least recently used
//! goes first.

use crate::pipeline::{Conditioned, PromptKey};
use std::collections::HashMap;

/// The most bytes that remembered conditionings hold: at SDXL's size in f32 some four hundred prompts.
pub(super) const MOST_BYTES: usize = 256 << 20;

/// Remembered conditionings of one model.
#[derive(Debug)]
pub(super) struct Conditionings {
    known: HashMap<PromptKey, Known>,
    bytes: usize,
    most: usize,
    clock: u64,
}

#[derive(Debug)]
struct Known {
    conditioned: Conditioned,
    used: u64,
}

impl Conditionings {
    /// Room for `most` bytes.
    pub fn new(most: usize) -> Self {
        Self { known: HashMap::new(), bytes: 0, most, clock: 0 }
    }

    /// What was made from `key`, if it is remembered.
    pub fn get(&mut self, key: &PromptKey) -> Option<Conditioned> {
        self.clock += 1;
        let known = self.known.get_mut(key)?;
        known.used = self.clock;
        Some(known.conditioned.clone())
    }

    /// Remembers what was made from `key`, and forgets what was used least recently until all fits.
    pub fn put(&mut self, key: PromptKey, conditioned: Conditioned) {
        let bytes = conditioned.bytes();
        if bytes > self.most {
            return;
        }
        self.clock += 1;
        self.bytes += bytes;
        if let Some(before) = self.known.insert(key, Known { conditioned, used: self.clock }) {
            self.bytes -= before.conditioned.bytes();
        }
        while self.bytes > self.most {
            let oldest = self.known.iter().min_by_key(|(_, known)| known.used).map(|(key, _)| key.clone());
            let Some(known) = oldest.and_then(|key| self.known.remove(&key)) else { break };
            self.bytes -= known.conditioned.bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Tensor};

    fn key(text: &str) -> PromptKey {
        PromptKey::Text { text: text.into(), chunks: 1, skipped: 0 }
    }

    /// A conditioning of 400 bytes.
    fn conditioned() -> Conditioned {
        let zeros = |columns| Tensor::zeros((1, columns), DType::F32, &Device::Cpu).unwrap();
        Conditioned { context: Some(zeros(90)), pooled: zeros(10) }
    }

    #[test]
    fn the_least_recently_used_is_forgotten_when_the_bytes_run_out() {
        let mut known = Conditionings::new(1000);
        known.put(key("a"), conditioned());
        known.put(key("b"), conditioned());
        assert!(known.get(&key("a")).is_some());
        known.put(key("c"), conditioned());
        let there = ["a", "b", "c"].map(|text| known.get(&key(text)).is_some());
        assert_eq!((there, known.bytes), ([true, false, true], 800));
    }

    #[test]
    fn what_is_larger_than_all_room_is_not_remembered_and_the_same_key_counts_once() {
        let mut known = Conditionings::new(500);
        known.put(key("a"), conditioned());
        known.put(key("a"), conditioned());
        assert_eq!(known.bytes, 400);
        let mut small = Conditionings::new(300);
        small.put(key("a"), conditioned());
        assert_eq!((small.bytes, small.get(&key("a")).is_some()), (0, false));
    }

    #[test]
    fn texts_layers_and_lengths_tell_keys_apart() {
        let mut known = Conditionings::new(10_000);
        known.put(key("a"), conditioned());
        let others = [
            PromptKey::Text { text: "a".into(), chunks: 2, skipped: 0 },
            PromptKey::Text { text: "a".into(), chunks: 1, skipped: 1 },
            PromptKey::Zeros { chunks: 1 },
        ];
        assert!(others.iter().all(|other| known.get(other).is_none()));
    }
}
