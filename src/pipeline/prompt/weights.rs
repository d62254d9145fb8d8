//! The weights people write into a prompt with brackets, read as A1111 reads them (`modules/prompt_parser.py`,
//! `parse_prompt_attention`).
//!
//! | written | meaning |
//! |---|---|
//! | `(text)` | weight 1.1 |
//! | `(text:1.3)` | weight 1.3 |
//! | `[text]` | weight 1/1.1 |
//! | `\(` `\)` `\[` `\]` `\\` | the letter itself |
//! | `BREAK` | what follows starts a new chunk |
//!
//! Nested weights multiply. A bracket that is never closed reaches to the end, one that was never opened is text, and
//! so is a number that is none, as in `(a:1.2.3)`. A prompt without brackets is text as it stands, backslashes
//! included. Unlike A1111 a backslash before any other letter stays, `BREAK` works inside brackets, and there is no
//! prompt editing (`[from:to:0.5]`) and no alternation (`[a|b]`).

/// What an unnumbered round bracket multiplies by; a square one divides.
const EMPHASIS: f64 = 1.1;
/// The word that starts a new chunk.
const BREAK: &str = "BREAK";

/// A stretch of text under one weight.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// The text, brackets and escapes resolved.
    pub text: String,
    /// What its tokens count for; 1 is plain. Not checked: what is written may multiply to infinity, or to no number.
    pub weight: f32,
}

/// The runs of `prompt`, in one list for each stretch between `BREAK`s. Neighbours of one weight are one run, and
/// no run is empty; takes time in proportion to the length.
pub fn sections(prompt: &str) -> Vec<Vec<Run>> {
    let mut sections = Sections(vec![Vec::new()]);
    if !prompt.contains(['(', ')', '[', ']']) {
        sections.push(prompt, 1.0);
        return sections.0;
    }
    let mut open = Open::default();
    for piece in factors(pieces(prompt)) {
        match piece {
            Piece::Text(text) => sections.push(text, open.weight()),
            Piece::Escaped(text) => sections.append(text, open.weight()),
            Piece::Open(shape, factor) => open.enter(shape, factor),
            Piece::Close(shape, _) => open.leave(shape),
        }
    }
    sections.0
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Round,
    Square,
}

impl Shape {
    /// The factor of a bracket without a number.
    fn factor(self) -> f64 {
        match self {
            Self::Round => EMPHASIS,
            Self::Square => 1.0 / EMPHASIS,
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Piece<'a> {
    Text(&'a str),
    /// A letter that a backslash took the meaning from.
    Escaped(&'a str),
    /// A bracket with the factor of what it holds.
    Open(Shape, f64),
    /// A bracket with what stands before it as a number and itself, in case it closes nothing.
    Close(Shape, &'a str),
}

/// Cuts a prompt at its brackets and escapes.
fn pieces(prompt: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = prompt;
    while let Some(letter) = rest.chars().next() {
        let (piece, length) = match letter {
            '\\' if rest[1..].starts_with(['(', ')', '[', ']', '\\']) => (Piece::Escaped(&rest[1..2]), 2),
            '(' => (Piece::Open(Shape::Round, Shape::Round.factor()), 1),
            '[' => (Piece::Open(Shape::Square, Shape::Square.factor()), 1),
            ')' => (Piece::Close(Shape::Round, &rest[..1]), 1),
            ']' => (Piece::Close(Shape::Square, &rest[..1]), 1),
            ':' if let Some(length) = number_and_bracket(rest) => {
                (Piece::Close(Shape::Round, &rest[..length]), length)
            }
            _ => {
                let first = letter.len_utf8();
                let length =
                    rest[first..].find(['\\', '(', '[', ')', ']', ':']).map_or(rest.len(), |at| at + first);
                (Piece::Text(&rest[..length]), length)
            }
        };
        pieces.push(piece);
        rest = &rest[length..];
    }
    pieces
}

/// The length of `:1.3)` at the head of `text`, spaces around the number allowed.
fn number_and_bracket(text: &str) -> Option<usize> {
    let of_number = |c: char| c.is_ascii_digit() || c.is_whitespace() || matches!(c, '+' | '-' | '.');
    let end = 1 + text[1..].find(|c| !of_number(c))?;
    let close = text.get(..=end)?;
    number(close).map(|_| close.len())
}

/// The number in `:1.3)`.
fn number(close: &str) -> Option<f64> {
    close.strip_prefix(':')?.strip_suffix(')')?.trim().parse().ok()
}

/// Gives each opening bracket the factor that its closing one sets, and turns brackets that close nothing into text.
fn factors(mut pieces: Vec<Piece<'_>>) -> Vec<Piece<'_>> {
    let mut open: [Vec<usize>; 2] = Default::default();
    for at in 0..pieces.len() {
        match pieces[at] {
            Piece::Open(shape, _) => open[shape as usize].push(at),
            Piece::Close(shape, written) => match open[shape as usize].pop() {
                Some(opened) => {
                    pieces[opened] = Piece::Open(shape, number(written).unwrap_or(shape.factor()));
                }
                None => pieces[at] = Piece::Text(written),
            },
            Piece::Text(_) | Piece::Escaped(_) => {}
        }
    }
    pieces
}

/// The product of the brackets open at each depth; the two shapes may interleave, as in `(a [b) c]`.
#[derive(Default)]
struct Open([Vec<f64>; 2]);

impl Open {
    fn enter(&mut self, shape: Shape, factor: f64) {
        let products = &mut self.0[shape as usize];
        products.push(products.last().unwrap_or(&1.0) * factor);
    }

    fn leave(&mut self, shape: Shape) {
        self.0[shape as usize].pop();
    }

    fn weight(&self) -> f32 {
        self.0.iter().filter_map(|products| products.last()).product::<f64>() as f32
    }
}

/// The sections under construction; the last one is open.
struct Sections(Vec<Vec<Run>>);

impl Sections {
    /// Adds text that may hold `BREAK`s as words of their own; the spaces around them go.
    fn push(&mut self, text: &str, weight: f32) {
        let mut rest = text;
        while let Some((before, after)) = split_at_break(rest) {
            self.append(before.trim_end(), weight);
            self.0.push(Vec::new());
            rest = after.trim_start();
        }
        self.append(rest, weight);
    }

    fn append(&mut self, text: &str, weight: f32) {
        let Some(section) = self.0.last_mut().filter(|_| !text.is_empty()) else { return };
        match section.last_mut() {
            Some(run) if run.weight == weight => run.text.push_str(text),
            _ => section.push(Run { text: text.to_owned(), weight }),
        }
    }
}

/// The text before and behind the first `BREAK` that is not part of a longer word.
fn split_at_break(text: &str) -> Option<(&str, &str)> {
    let of_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(BREAK)
        .map(|(at, _)| (&text[..at], &text[at + BREAK.len()..]))
        .find(|(before, after)| !before.ends_with(of_word) && !after.starts_with(of_word))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The only section of a prompt as pairs, weights to six digits.
    fn runs(prompt: &str) -> Vec<(String, f64)> {
        let mut sections = sections(prompt);
        assert_eq!(sections.len(), 1, "{prompt}");
        let rounded = |run: Run| (run.text, (f64::from(run.weight) * 1e6).round() / 1e6);
        sections.remove(0).into_iter().map(rounded).collect()
    }

    fn assert_runs(prompt: &str, want: &[(&str, f64)]) {
        let want: Vec<(String, f64)> = want.iter().map(|&(text, weight)| (text.to_owned(), weight)).collect();
        assert_eq!(runs(prompt), want, "{prompt}");
    }

    #[test]
    fn the_examples_in_a1111s_own_documentation_hold() {
        assert_runs("normal text", &[("normal text", 1.0)]);
        assert_runs("an (important) word", &[("an ", 1.0), ("important", 1.1), (" word", 1.0)]);
        assert_runs("(unbalanced", &[("unbalanced", 1.1)]);
        assert_runs(r"\(literal\]", &[("(literal]", 1.0)]);
        assert_runs("(unnecessary)(parens)", &[("unnecessaryparens", 1.1)]);
        assert_runs(
            "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
            &[
                ("a ", 1.0),
                ("house", 1.573),
                (" ", 1.1),
                ("on", 1.0),
                (" a ", 1.1),
                ("hill", 0.55),
                (", sun, ", 1.1),
                ("sky", 1.4641),
                (".", 1.1),
            ],
        );
    }

    #[test]
    fn a_number_replaces_the_factor_of_a_round_bracket_only() {
        assert_runs("(a:1.3)", &[("a", 1.3)]);
        assert_runs("(a: .5 )", &[("a", 0.5)]);
        assert_runs("(a:-1)(b:+2)(c:0)", &[("a", -1.0), ("b", 2.0), ("c", 0.0)]);
        assert_runs("(a:b:1.2)", &[("a:b", 1.2)]);
        assert_runs("[a:1.2]", &[("a:1.2", 0.909091)]);
        assert_runs("at 10:30 (x)", &[("at 10:30 ", 1.0), ("x", 1.1)]);
        assert_runs("[[a]] ((b))", &[("a", 0.826446), (" ", 1.0), ("b", 1.21)]);
    }

    #[test]
    fn what_is_no_number_and_what_closes_nothing_is_text() {
        assert_runs("(a:1.2.3)", &[("a:1.2.3", 1.1)]);
        assert_runs("(a:)(b:x)", &[("a:b:x", 1.1)]);
        assert_runs("a:1.3) b] :)", &[("a:1.3) b] :)", 1.0)]);
        assert_runs("(é:1.2)é:é)", &[("é", 1.2), ("é:é)", 1.0)]);
    }

    #[test]
    fn brackets_of_both_shapes_may_interleave() {
        assert_runs("(a [b) c] d", &[("a ", 1.1), ("b", 1.0), (" c", 0.909091), (" d", 1.0)]);
        assert_runs("([a", &[("a", 1.0)]);
    }

    #[test]
    fn escapes_hold_beside_brackets_and_a_prompt_without_brackets_stands_as_it_is() {
        assert_runs(r"(a \(b\) \[c\] \\d:2)", &[(r"a (b) [c] \d", 2.0)]);
        assert_runs(r"\\(a)", &[(r"\", 1.0), ("a", 1.1)]);
        assert_runs(r"¯\_(x)", &[(r"¯\_", 1.0), ("x", 1.1)]);
        assert_runs(r"a \\ b \", &[(r"a \\ b \", 1.0)]);
    }

    #[test]
    fn nothing_but_brackets_has_no_runs() {
        for prompt in ["", "()", "((([[[", "(:1.3)"] {
            assert_runs(prompt, &[]);
        }
    }

    #[test]
    fn the_word_break_parts_sections_and_keeps_the_weight() {
        let texts = |prompt| -> Vec<String> {
            let text =
                |section: Vec<Run>| section.iter().map(|r| format!("{}*{}", r.text, r.weight)).collect();
            sections(prompt).into_iter().map(text).collect()
        };
        assert_eq!(texts("a BREAK  b"), ["a*1", "b*1"]);
        assert_eq!(texts("(a BREAK b:2) c"), ["a*2", "b*2 c*1"]);
        assert_eq!(texts("a,BREAK,b"), ["a,*1", ",b*1"]);
        assert_eq!(texts("BREAKFAST break xBREAK _BREAK"), ["BREAKFAST break xBREAK _BREAK*1"]);
        assert_eq!(texts("BREAKx BREAK"), ["BREAKx*1", ""]);
    }

    #[test]
    fn endless_nesting_is_read_in_one_pass() {
        let deep = "(a".repeat(16_000);
        let runs = runs(&deep);
        assert_eq!(runs[0], ("a".to_owned(), 1.1));
        assert!(runs.last().is_some_and(|(_, weight)| weight.is_infinite()));
        assert!(sections(&":1 ".repeat(10_000)).len() == 1);
    }
}
