//! Files made of a corpus by damage, for the tests that hold whatever comes in.
//!
//! `cargo test` tries a few hundred, the same each time. `EASEL_FUZZ_SECONDS=600 cargo test --lib properties` tries new
//! ones for ten minutes each, and bounds the memory that they take.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};
use std::cell::Cell;
use std::fmt::Debug;
use std::path::Path;
use std::time::{Duration, Instant};

/// Cases of a short run, and of one round of a long one.
const CASES: u32 = 256;

/// The most memory that this process may have had after a long run.
const MOST_MIB: u64 = 2048;

/// A change to a file.
#[derive(Debug, Clone)]
enum Damage {
    /// Other bits in one place.
    Flip(Index, u8),
    /// Bytes put in.
    Insert(Index, Vec<u8>),
    /// A word of the language put in.
    Word(Index, Index),
    /// A stretch taken out.
    Remove(Index, u8),
    /// A stretch written a second time elsewhere.
    Repeat(Index, u8, Index),
    /// The rest taken away.
    Cut(Index),
    /// The rest of another file in place of the own.
    Splice(Index, Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<Index>;
    prop_oneof![
        (at(), 1..=255_u8).prop_map(|(at, bits)| Damage::Flip(at, bits)),
        (at(), vec(any::<u8>(), 0..24)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        (at(), at()).prop_map(|(at, word)| Damage::Word(at, word)),
        (at(), any::<u8>()).prop_map(|(at, length)| Damage::Remove(at, length)),
        (at(), any::<u8>(), at()).prop_map(|(from, length, to)| Damage::Repeat(from, length, to)),
        at().prop_map(Damage::Cut),
        (at(), at()).prop_map(|(at, other)| Damage::Splice(at, other)),
    ]
}

/// What files are made of.
#[derive(Debug, Clone)]
pub(crate) struct Corpus {
    files: Vec<Vec<u8>>,
    words: Vec<Vec<u8>>,
}

impl Corpus {
    /// Files, and the words of their language.
    pub fn new(files: Vec<Vec<u8>>, words: &[&[u8]]) -> Self {
        Self { files, words: words.iter().map(|word| word.to_vec()).collect() }
    }

    /// The files of a folder, relative to the repository.
    pub fn of_folder(folder: &str, words: &[&[u8]]) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
        let mut paths: Vec<_> = entries.filter(|path| path.is_file()).collect();
        paths.sort();
        Self::new(paths.iter().map(|path| std::fs::read(path).unwrap()).collect(), words)
    }

    /// Files with up to eight damages.
    pub fn damaged(&self) -> impl Strategy<Value = Vec<u8>> + use<> {
        let corpus = self.clone();
        (any::<Index>(), vec(damage(), 0..8)).prop_map(move |(which, damages)| {
            let file = which.get(&corpus.files).clone();
            damages.into_iter().fold(file, |file, damage| corpus.apply(file, damage))
        })
    }

    fn apply(&self, mut file: Vec<u8>, damage: Damage) -> Vec<u8> {
        let place = |at: Index| at.index(file.len() + 1);
        let stretch =
            |from: Index, length: u8| place(from)..(place(from) + usize::from(length)).min(file.len());
        match damage {
            Damage::Flip(at, bits) => {
                let at = place(at);
                file.get_mut(at).into_iter().for_each(|byte| *byte ^= bits);
            }
            Damage::Insert(at, bytes) => drop(file.splice(place(at)..place(at), bytes)),
            Damage::Word(at, word) => drop(file.splice(place(at)..place(at), word.get(&self.words).clone())),
            Damage::Remove(from, length) => drop(file.drain(stretch(from, length))),
            Damage::Repeat(from, length, to) => {
                let again = file[stretch(from, length)].to_vec();
                let to = place(to);
                file.splice(to..to, again);
            }
            Damage::Cut(at) => file.truncate(place(at)),
            Damage::Splice(at, other) => {
                let other = other.get(&self.files);
                let at = at.index(file.len().min(other.len()) + 1);
                file.truncate(at);
                file.extend(&other[at..]);
            }
        }
        file
    }
}

/// Checks that `check` panics for nothing that `strategy` makes; what it panics for is made small before it is shown.
#[track_caller]
pub(crate) fn holds<S: Strategy>(strategy: S, check: impl Fn(S::Value))
where
    S::Value: Debug,
{
    let seconds = std::env::var("EASEL_FUZZ_SECONDS").ok().map(|text| text.parse().unwrap());
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let (began, time) = (Instant::now(), Duration::from_secs(seconds.unwrap_or(0)));
    let cases = Cell::new(0_u64);
    loop {
        // A runner counts what it has tried, and tries nothing more when that is enough: each round has its own.
        let mut runner = match seconds {
            Some(_) => TestRunner::new(config.clone()),
            None => {
                TestRunner::new_with_rng(config.clone(), TestRng::deterministic_rng(RngAlgorithm::ChaCha))
            }
        };
        let checked = runner.run(&strategy, |value| {
            cases.set(cases.get() + 1);
            check(value);
            Ok(())
        });
        match checked {
            Ok(()) => {}
            Err(TestError::Fail(why, value)) => panic!("{why}\n{value:?}"),
            Err(TestError::Abort(why)) => panic!("{why}"),
        }
        if began.elapsed() >= time {
            break;
        }
    }
    let cases = cases.get();
    assert!(cases >= u64::from(CASES), "{cases}");
    if seconds.is_some() {
        let peak = peak_mib();
        println!("{cases} cases in {} s, at most {peak} MiB", began.elapsed().as_secs());
        assert!(peak <= MOST_MIB, "{peak} MiB");
    }
}

/// The most memory that this process has had, in MiB; 0 where the system does not tell.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()).unwrap_or(0) / 1024
}
