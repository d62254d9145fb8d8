//! Token ids and initial noise: what must be equal before any network runs.

use crate::support::{Golden, MODELS, fixtures, values};
use candle_core::{DType, Device};
use easel::pipeline::Generator;
use easel::pipeline::prompt::{PromptTokenizer, tokenize};

/// Both compute with f32 logarithms and cosines, whose last bits may differ.
const NOISE_TOLERANCE: f32 = 1e-6;

#[test]
fn token_ids_are_those_of_transformers() {
    for golden in MODELS.map(Golden::open) {
        for (folder, ids, plain) in [("tokenizer", "ids_1", "1"), ("tokenizer_2", "ids_2", "2")] {
            let tokenizer = PromptTokenizer::load(&golden.folder.files().folder(folder)).expect("it loads");
            let want = golden.tensor(ids).to_dtype(DType::U32).and_then(|t| t.to_vec2::<u32>()).expect("ids");
            let prompts = golden.facts["prompts"].as_array().expect("a list of prompts");
            for (row, prompt) in prompts.iter().enumerate() {
                let prompt = prompt.as_str().expect("a prompt is text");
                let what = format!("{folder} of {}, {prompt:?}", golden.name);
                let whole: Vec<u32> =
                    serde_json::from_value(golden.facts["plain_ids"][plain][row].clone()).expect("ids");
                assert_eq!(tokenizer.encode(prompt).as_ref(), Ok(&whole), "{what}");
                if !prompt.contains(['(', ')', '[', ']']) {
                    let chunks = tokenize(&tokenizer, "prompt", prompt).expect("it fits");
                    assert_eq!(chunks.chunks()[0].ids, want[row], "{what}");
                }
            }
        }
    }
}

#[test]
fn noise_is_that_of_torchs_cpu_generator() {
    let path = fixtures().join("noise.safetensors");
    let golden = candle_core::safetensors::load(path, &Device::Cpu).expect("the noise is read");
    let close = |what: &str, got: &[f32]| {
        let want = values(&golden[what]);
        assert_eq!(got.len(), want.len(), "{what}");
        let worst = got.iter().zip(&want).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
        assert!(worst <= NOISE_TOLERANCE, "{what} is off by {worst:e}");
    };
    for seed in [0, 7, (1 << 32) - 1, (1 << 32) + 5] {
        for count in [256, 15, 17, 100] {
            let mut generator = Generator::new(seed);
            close(&format!("seed_{seed}.count_{count}"), &generator.normal(count));
            close(&format!("seed_{seed}.count_{count}.then"), &generator.normal(count));
        }
    }
    let mut generator = Generator::new(7);
    for (k, count) in [15, 256, 17, 3, 100].into_iter().enumerate() {
        close(&format!("mixed_{k}"), &generator.normal(count));
    }
}
