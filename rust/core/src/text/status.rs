//! What is known of a text beside its embedding.

/// Whether a text could be embedded, and if not why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Status {
    /// The embedding says something about the text.
    #[default]
    Ok = 0,
    /// The text has no characters.
    Empty = 1,
    /// The text has only white space, control and invisible characters.
    Blank = 2,
    /// No feature of the text has a row in the table.
    Unknown = 3,
    /// The text is not valid Unicode (lone surrogates).
    Invalid = 4,
    /// There is no text (a null of a column, or `None`).
    Null = 5,
}

impl Status {
    /// Every status, in the order of its number.
    pub const ALL: [Self; 6] = [
        Self::Ok,
        Self::Empty,
        Self::Blank,
        Self::Unknown,
        Self::Invalid,
        Self::Null,
    ];

    /// The name that users see.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Empty => "empty",
            Self::Blank => "blank",
            Self::Unknown => "unknown",
            Self::Invalid => "invalid",
            Self::Null => "null",
        }
    }
}

/// What is known of a text beside its embedding.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Embedded {
    /// Whether the text could be embedded; the embedding is zero if not.
    pub status: Status,
    /// The share of the text's feature weight that the table knows, 0 to 1: of all occurrences of
    /// features, each weighted with its inverse document frequency.
    pub coverage: f32,
}

impl Embedded {
    pub(super) fn none(status: Status) -> Self {
        Self {
            status,
            coverage: 0.0,
        }
    }
}
