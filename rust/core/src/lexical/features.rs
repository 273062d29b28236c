//! The feature definition, version 1: text -> tokens -> feature ids.
//!
//! 1. *Characters.* Each code point is decomposed canonically, its accents (combining class 10 or
//!    more) dropped, the rest case-folded one to one, and decimal digits of every script become
//!    ASCII digits; so canonically equivalent texts have the same features. The table of
//!    [`super::unicode`] says what stands for each code point, and its class.
//! 2. *Tokens.* A run of letters and marks is a token. Every digit, every symbol, and every
//!    letter of a script written without spaces (Han, kana, Hangul, Thai, ...) is a token alone.
//!    White space and control characters end a run; invisible characters (joiners, variation
//!    selectors, accents) do not.
//! 3. *Hashes.* A token's hash folds the 16-byte pieces of its UTF-8 bytes, the last one filled
//!    with zeros: `h = mix(low ^ h, high ^ SECOND)`, starting from [`SEED`]; `mix` is the folded
//!    product of wyhash. An n-gram's is `mix(hash of its first n - 1 tokens ^ THIRD, h ^ FOURTH)`.
//! 4. *Features.* Of each token its unigram and the n-grams that end in it, up to the order in
//!    use; [`START`] stands before the first token. A feature's id is the upper half of its hash.
//!
//! Anything that changes an id makes a new version. `tests/conformance/lexical_v1.json` pins it.

use super::unicode::{ACTION_OF, ACTIONS, BLOCK as CODE_BLOCK, BLOCK_OF, EXPANSIONS};
use crate::kernels::lexical::{BLOCK, WINDOW, classify};

/// Version of the definition, stored with every table that was fitted on its ids.
pub const VERSION: u32 = 1;

/// Highest order of n-grams.
pub const MAX_ORDER: usize = 3;

const SEED: u64 = 0xa076_1d64_78bd_642f;
const SECOND: u64 = 0xe703_7ed1_a0b4_28db;
const THIRD: u64 = 0x8ebc_6af0_9c88_c6e3;
const FOURTH: u64 = 0x5899_65cc_7537_4cc3;

/// The hash that stands before the first token.
const START: u64 = SEED;

/// Most tokens that [`Tokens::fill`] gives at once.
pub const CHUNK: usize = 256;

/// Most tokens that one step of the tokeniser adds.
const STEP: usize = BLOCK;

fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

/// Hash of the token `piece`, or of a longer one that goes on with `piece` after `state`.
fn fold(state: u64, piece: u128) -> u64 {
    mix(piece as u64 ^ state, (piece >> 64) as u64 ^ SECOND)
}

/// A token under construction.
#[derive(Default)]
struct Word {
    state: Option<u64>,
    piece: [u8; 16],
    len: usize,
}

impl Word {
    fn push(&mut self, c: char) {
        for &byte in c.encode_utf8(&mut [0; 4]).as_bytes() {
            if self.len == 16 {
                self.state = Some(self.hash());
                self.piece = [0; 16];
                self.len = 0;
            }
            self.piece[self.len] = byte;
            self.len += 1;
        }
    }

    fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn hash(&self) -> u64 {
        fold(self.state.unwrap_or(SEED), u128::from_le_bytes(self.piece))
    }
}

/// Writes the hashes of finished tokens.
struct Sink<'a> {
    hashes: &'a mut [u64; CHUNK],
    len: usize,
}

impl Sink<'_> {
    fn push(&mut self, hash: u64) {
        self.hashes[self.len] = hash;
        self.len += 1;
    }
}

/// The hashes of a text's tokens, in chunks of bounded size.
pub struct Tokens<'a> {
    text: &'a str,
    at: usize,
    /// The unfinished token of the path by code point.
    word: Word,
    /// Whether to go by code point: from a run of letters that is not all ASCII, or is longer
    /// than a block, to the next ASCII text.
    by_code_point: bool,
}

impl<'a> Tokens<'a> {
    /// Starts at the beginning of `text`.
    pub fn new(text: &'a str) -> Self {
        Self {
            text,
            at: 0,
            word: Word::default(),
            by_code_point: false,
        }
    }

    /// Writes the hashes of the next tokens and returns how many; zero at the end of the text.
    pub fn fill(&mut self, hashes: &mut [u64; CHUNK]) -> usize {
        let mut sink = Sink { hashes, len: 0 };
        while sink.len + STEP <= CHUNK && self.at < self.text.len() {
            if self.by_code_point {
                self.step_code_point(&mut sink);
            } else {
                self.step_block(&mut sink);
            }
        }
        if self.at == self.text.len() && sink.len < CHUNK {
            self.end_word(&mut sink);
        }
        sink.len
    }

    /// Takes the tokens that lie wholly in the next block, up to the first one that is not ASCII.
    fn step_block(&mut self, sink: &mut Sink<'_>) {
        let rest = &self.text.as_bytes()[self.at..];
        let mut padded = [0; WINDOW];
        let window = rest.first_chunk().unwrap_or_else(|| {
            padded[..rest.len()].copy_from_slice(rest);
            &padded
        });
        let mut lower = [0; WINDOW];
        let classes = classify(window, &mut lower);
        let ascii = classes.wide.trailing_zeros();
        // A run of letters that touches the end of what can be read here may go on after it.
        let cut = if ascii == 0 {
            0
        } else {
            (classes.letters << (64 - ascii)).leading_ones()
        };
        let end = ascii - cut;
        if end == 0 {
            self.by_code_point = true;
            return;
        }
        let here = u64::MAX >> (64 - end);
        let letters = classes.letters & here;
        let alone = !classes.letters & !classes.spaces & here;
        let mut starts = letters & !(letters << 1) | alone;
        while starts != 0 {
            let start = starts.trailing_zeros() as usize;
            starts &= starts - 1;
            let len = (letters >> start).trailing_ones().max(1) as usize;
            sink.push(hash_token(&lower, start, len));
        }
        self.at += (end as usize).min(rest.len());
    }

    /// Takes one character.
    fn step_code_point(&mut self, sink: &mut Sink<'_>) {
        let mut rest = self.text[self.at..].chars();
        let Some(first) = rest.next() else { return };
        let c = compose_hangul(first, &mut rest);
        self.at = self.text.len() - rest.as_str().len();
        self.take(c, sink);
        // An ASCII character that is no letter ends every token, so blocks can take over.
        if first.is_ascii()
            && self.word.is_empty()
            && rest.as_str().as_bytes().iter().take(16).all(u8::is_ascii)
        {
            self.by_code_point = false;
        }
    }

    fn take(&mut self, c: char, sink: &mut Sink<'_>) {
        let code = c as usize;
        let block = BLOCK_OF[code / CODE_BLOCK] as usize;
        let (class, value) = ACTIONS[ACTION_OF[block][code % CODE_BLOCK] as usize];
        let mapped = || char::from_u32((code as i32 + value) as u32).unwrap_or(c);
        match class {
            0 => self.end_word(sink),
            1 => {}
            2 => self.word.push(mapped()),
            3 => {
                self.end_word(sink);
                self.word.push(mapped());
                self.end_word(sink);
            }
            _ => EXPANSIONS[value as usize]
                .chars()
                .for_each(|c| self.take(c, sink)),
        }
    }

    fn end_word(&mut self, sink: &mut Sink<'_>) {
        if !self.word.is_empty() {
            sink.push(self.word.hash());
            self.word = Word::default();
        }
    }
}

/// Hash of the token at `start` of a block in lower case.
fn hash_token(lower: &[u8; WINDOW], start: usize, len: usize) -> u64 {
    let piece = |at: usize, len: usize| {
        let at = at % BLOCK;
        let bytes: [u8; 16] = lower[at..at + 16].try_into().unwrap_or_default();
        u128::from_le_bytes(bytes) & (u128::MAX >> (128 - 8 * len))
    };
    let mut hash = fold(SEED, piece(start, len.min(16)));
    let mut done = 16;
    while done < len {
        hash = fold(hash, piece(start + done, (len - done).min(16)));
        done += 16;
    }
    hash
}

/// The syllable that `first` makes with the jamo after it, as canonical composition would.
fn compose_hangul(first: char, rest: &mut std::str::Chars<'_>) -> char {
    const SYLLABLES: u32 = 0xac00;
    const VOWELS: u32 = 21;
    const FINALS: u32 = 28;
    let take = |rest: &mut std::str::Chars<'_>, from: u32, to: u32| {
        let next = rest
            .clone()
            .next()
            .map(u32::from)
            .filter(|c| (from..=to).contains(c))?;
        rest.next();
        Some(next - from)
    };
    let mut code = first as u32;
    if (0x1100..=0x1112).contains(&code)
        && let Some(vowel) = take(rest, 0x1161, 0x1175)
    {
        code = SYLLABLES + ((code - 0x1100) * VOWELS + vowel) * FINALS;
    }
    if (SYLLABLES..=0xd7a3).contains(&code)
        && (code - SYLLABLES).is_multiple_of(FINALS)
        && let Some(last) = take(rest, 0x11a8, 0x11c2)
    {
        code += last + 1;
    }
    char::from_u32(code).unwrap_or(first)
}

/// The last tokens' n-grams, from which the next ones are made.
#[derive(Clone, Copy)]
pub struct Context {
    /// `ngrams[n - 1]`: hash of the last `n` tokens.
    ngrams: [u64; MAX_ORDER],
}

impl Default for Context {
    fn default() -> Self {
        Self {
            ngrams: [START; MAX_ORDER],
        }
    }
}

impl Context {
    /// The ids of the features that end in this token, lowest order first.
    #[inline]
    pub fn next<const ORDER: usize>(&mut self, hash: u64) -> [u32; ORDER] {
        let mut ngrams = [hash; MAX_ORDER];
        for (ngram, shorter) in ngrams[1..].iter_mut().zip(self.ngrams).take(ORDER - 1) {
            *ngram = mix(shorter ^ THIRD, hash ^ FOURTH);
        }
        self.ngrams = ngrams;
        std::array::from_fn(|n| (ngrams[n] >> 32) as u32)
    }
}

/// Calls `each` with every feature id of `text`, in the order of the text; repeats included.
pub fn for_each_feature(text: &str, order: usize, mut each: impl FnMut(u32)) {
    match order {
        1 => for_each_feature_of::<1>(text, &mut each),
        2 => for_each_feature_of::<2>(text, &mut each),
        _ => for_each_feature_of::<MAX_ORDER>(text, &mut each),
    }
}

#[inline]
fn for_each_feature_of<const ORDER: usize>(text: &str, each: &mut impl FnMut(u32)) {
    let mut tokens = Tokens::new(text);
    let mut hashes = [0; CHUNK];
    let mut context = Context::default();
    loop {
        let n = tokens.fill(&mut hashes);
        if n == 0 {
            return;
        }
        for &hash in &hashes[..n] {
            for id in context.next::<ORDER>(hash) {
                each(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(text: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        for_each_feature(text, 2, |id| ids.push(id));
        ids
    }

    #[test]
    fn case_and_accents_do_not_count() {
        assert_eq!(ids("Résumé ΣΊΣΥΦΟΣ"), ids("re\u{301}sume\u{301} σισυφος"));
        assert_eq!(ids("RESUME"), ids("résumé"));
    }

    #[test]
    fn blocks_and_code_points_agree_wherever_a_text_is_cut() {
        let text = "The quick brown fox, 42 jumps; ".repeat(9) + &"x".repeat(200) + " end";
        let expected = ids(&text);
        for at in (0..text.len()).step_by(3) {
            // An invisible character sends its surroundings down the other path.
            let marked = format!("{}\u{200d}{}", &text[..at], &text[at..]);
            assert_eq!(ids(&marked), expected, "cut at {at}");
        }
    }

    #[test]
    fn hangul_jamo_make_syllables() {
        assert_eq!(
            ids("한국어"),
            ids("\u{1112}\u{1161}\u{11ab}\u{1100}\u{116e}\u{11a8}\u{110b}\u{1165}")
        );
        assert_eq!(ids("한국어").len(), 6);
    }

    #[test]
    fn invisible_text_has_no_features() {
        for text in ["", " \t\r\n\0", "\u{200d}\u{fe0f}", "\u{301}", "\u{3000}"] {
            assert_eq!(ids(text), [0u32; 0], "{text:?}");
        }
    }
}
