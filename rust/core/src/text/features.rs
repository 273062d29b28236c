//! The feature definition, version 1: text -> tokens -> feature ids.
//!
//! 1. *Characters.* Each code point is decomposed canonically, its accents (combining class 10 or
//!    more) dropped, the rest case-folded one to one, and decimal digits of every script become
//!    ASCII digits; so canonically equivalent texts have the same features (but for marks of
//!    two classes below 10 on one letter, which stay in the order of the text). The table of
//!    [`super::unicode`] says what stands for each code point, and its class.
//! 2. *Tokens.* A run of letters and marks is a token. Every digit, every symbol, and every
//!    letter of a script written without spaces (Han, kana, Hangul, Thai, ...) is a token alone.
//!    White space and control characters end a run; invisible characters (joiners, variation
//!    selectors, accents) do not.
//! 3. *Hashes.* A token's hash folds the 16-byte pieces of its UTF-8 bytes, the last one filled
//!    with zeros: `h = mix(low ^ h, high ^ SECOND)`, starting from [`SEED`]; `mix` is the folded
//!    product of wyhash. An n-gram's is `((first n - 1 tokens' <<< 23) ^ last token's) * THIRD`,
//!    which vectorises.
//! 4. *Features.* The unigrams, then the n-grams of each higher order in use; [`SEED`] stands for
//!    what comes before the first token. A feature's id is the upper half of its hash.
//!
//! Anything that changes an id makes a new version. `tests/conformance/lexical_v1.json` pins it.

// What runs for every token must become part of the caller that is compiled for the instruction
// set; only inlining makes it so.
#![allow(clippy::inline_always)]

use super::unicode::{ACTION_OF, ACTIONS, BLOCK as CODE_BLOCK, BLOCK_OF, EXPANSIONS};
use crate::kernels::Kernels;
use crate::kernels::text::{BLOCK, Lexical, WINDOW, Work, run};

/// Version of the definition, stored with every table that was fitted on its ids.
pub const VERSION: u32 = 1;

/// Highest order of n-grams.
pub const MAX_ORDER: usize = 3;

const SEED: u64 = 0xa076_1d64_78bd_642f;
const SECOND: u64 = 0xe703_7ed1_a0b4_28db;
const THIRD: u64 = 0x8ebc_6af0_9c88_c6e3;

/// Most tokens that [`Tokens::fill`] gives at once.
pub const CHUNK: usize = 128;

/// Most tokens that one step of the tokeniser adds.
const STEP: usize = BLOCK;

#[inline(always)]
fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

/// Hash of the token `piece`, or of a longer one that goes on with `piece` after `state`.
#[inline(always)]
fn fold(state: u64, [low, high]: [u64; 2]) -> u64 {
    mix(low ^ state, high ^ SECOND)
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
        let piece = u128::from_le_bytes(self.piece);
        fold(
            self.state.unwrap_or(SEED),
            [piece as u64, (piece >> 64) as u64],
        )
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
    #[inline(always)]
    pub fn fill<L: Lexical>(&mut self, hashes: &mut [u64; CHUNK]) -> usize {
        let mut sink = Sink { hashes, len: 0 };
        while sink.len + STEP <= CHUNK && self.at < self.text.len() {
            if self.by_code_point {
                self.step_code_point(&mut sink);
            } else {
                self.step_block::<L>(&mut sink);
            }
        }
        if self.at == self.text.len() && sink.len < CHUNK {
            self.end_word(&mut sink);
        }
        sink.len
    }

    /// Takes the tokens that lie wholly in the next block, up to the first one that is not ASCII.
    #[inline(always)]
    fn step_block<L: Lexical>(&mut self, sink: &mut Sink<'_>) {
        let rest = &self.text.as_bytes()[self.at..];
        let padded;
        let window = if let Some(window) = rest.first_chunk() {
            window
        } else {
            padded = pad(rest);
            &padded
        };
        let classes = L::classify(window);
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
        let mut ends = letters & !(letters >> 1) | alone;
        while starts != 0 {
            let start = starts.trailing_zeros() as usize;
            let last = ends.trailing_zeros() as usize;
            starts &= starts - 1;
            ends &= ends.wrapping_sub(1);
            let letter = letters >> start & 1 != 0;
            sink.push(hash_token(window, start, last + 1 - start, letter));
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

/// `MASKS[n]`: the first `n` bytes of two words.
const MASKS: [[u64; 2]; 17] = {
    let mut masks = [[0; 2]; 17];
    let mut n = 1;
    while n <= 16 {
        masks[n] = if n < 8 {
            [u64::MAX >> (64 - 8 * n), 0]
        } else {
            [u64::MAX, u64::MAX.unbounded_shr(128 - 8 * n as u32)]
        };
        n += 1;
    }
    masks
};

/// The last bytes of a text, as if zeros came after them.
fn pad(rest: &[u8]) -> [u8; WINDOW] {
    let mut padded = [0; WINDOW];
    padded[..rest.len()].copy_from_slice(rest);
    padded
}

/// Hash of the token of `len` bytes at `start` of a block: of ASCII letters, taken in lower case, or
/// of one other character.
#[inline(always)]
fn hash_token(window: &[u8; WINDOW], start: usize, len: usize, letters: bool) -> u64 {
    let to_lower = u64::from(letters) * u64::from_ne_bytes([0x20; 8]);
    let piece = |at: usize, len: usize| {
        let at = at % BLOCK;
        let word =
            |at: usize| u64::from_le_bytes(window[at..at + 8].try_into().unwrap_or_default());
        let [low, high] = MASKS[len];
        [
            (word(at) | to_lower) & low,
            (word(at + 8) | to_lower) & high,
        ]
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

/// Memory that [`Features`] works in.
pub struct Buffers {
    /// `hashes[n]`: of n-grams of `n + 1` tokens; first the last one of the chunk before.
    hashes: [[u64; CHUNK + 1]; MAX_ORDER],
    ids: [u32; CHUNK * MAX_ORDER],
}

impl Default for Buffers {
    fn default() -> Self {
        Self {
            hashes: [[0; CHUNK + 1]; MAX_ORDER],
            ids: [0; CHUNK * MAX_ORDER],
        }
    }
}

/// The feature ids of a text, in chunks of bounded size.
pub struct Features<'a> {
    tokens: Tokens<'a>,
    order: usize,
    buffers: &'a mut Buffers,
}

impl<'a> Features<'a> {
    /// Starts at the beginning of `text`; n-grams have up to `order` tokens, [`MAX_ORDER`] at most.
    #[inline(always)]
    pub fn new(text: &'a str, order: usize, buffers: &'a mut Buffers) -> Self {
        for hashes in &mut buffers.hashes {
            hashes[0] = SEED;
        }
        Self {
            tokens: Tokens::new(text),
            order: order.min(MAX_ORDER),
            buffers,
        }
    }

    /// The ids of the features that end in the next tokens, repeats included, the unigrams first;
    /// `None` at the end of the text.
    #[inline(always)]
    pub fn next_chunk<L: Lexical>(&mut self) -> Option<&[u32]> {
        let Buffers { hashes, ids } = &mut *self.buffers;
        let (_, tokens) = hashes[0].split_first_chunk_mut::<1>()?;
        let n = self.tokens.fill::<L>(tokens.first_chunk_mut()?);
        if n == 0 {
            return None;
        }
        for order in 1..self.order {
            let (shorter, ngrams) = hashes.split_at_mut(order);
            let (starts, ends) = (&shorter[order - 1][..n], &shorter[0][1..=n]);
            for ((ngram, start), end) in ngrams[0][1..=n].iter_mut().zip(starts).zip(ends) {
                *ngram = (start.rotate_left(23) ^ end).wrapping_mul(THIRD);
            }
        }
        for (hashes, ids) in hashes[..self.order].iter_mut().zip(ids.chunks_exact_mut(n)) {
            for (id, hash) in ids.iter_mut().zip(&hashes[1..]) {
                *id = (hash >> 32) as u32;
            }
            hashes[0] = hashes[n];
        }
        Some(&ids[..self.order * n])
    }
}

/// Every feature id of `text`, repeats included, in no order of note. `ids` is cleared first.
pub fn collect_ids(text: &str, order: usize, ids: &mut Vec<u32>, buffers: &mut Buffers) {
    struct Collect<'a>(Features<'a>, &'a mut Vec<u32>);
    impl Work for Collect<'_> {
        type Output = ();
        #[inline(always)]
        fn run<L: Lexical>(mut self) {
            while let Some(ids) = self.0.next_chunk::<L>() {
                self.1.extend_from_slice(ids);
            }
        }
    }
    ids.clear();
    run(
        Kernels::active(),
        Collect(Features::new(text, order, buffers), ids),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(text: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        collect_ids(text, 2, &mut ids, &mut Buffers::default());
        ids.sort_unstable();
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
