//! Chat messages to the text that is routed on: by default what the user wrote, and nothing else.
//!
//! System prompts and tool results are the same for every request of a harness, or follow from the
//! route taken; routed on, they would drown the question. [`Chat`] is the rule; whoever has messages
//! hands them over one by one, so that memory never grows beyond what they say. [`ChatText`] reads
//! them from JSON.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The role that counts unless others are named.
pub const ROLE: &str = "user";

/// A text that grows line by line.
pub trait Lines {
    /// Whether nothing was written, not even a line break.
    fn is_empty(&self) -> bool;
    /// Appends a line break and more text.
    fn add(&mut self, more: Self);
}

impl Lines for Cow<'_, str> {
    fn is_empty(&self) -> bool {
        str::is_empty(self)
    }

    fn add(&mut self, more: Self) {
        let lines = self.to_mut();
        lines.push('\n');
        lines.push_str(&more);
    }
}

/// Appends a text, which begins one if there is none.
fn append<T: Lines>(text: &mut Option<T>, more: T) {
    match text {
        None => *text = Some(more),
        Some(text) => text.add(more),
    }
}

/// What a message or a part of one is not.
#[derive(Debug, PartialEq, Eq)]
pub enum Problem {
    /// A message says no role.
    NoRole,
    /// A part of type text has no text.
    NoText,
    /// The content is of a kind that contents are not.
    Content(String),
    /// A part is of a kind that parts are not.
    Part(String),
}

impl Problem {
    /// Whether something is of the wrong type, rather than missing.
    pub fn is_type(&self) -> bool {
        matches!(self, Self::Content(_) | Self::Part(_))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRole => f.write_str("no role; expected one such as 'user'"),
            Self::NoText => f.write_str("a text part without text; expected a str"),
            Self::Content(kind) => write!(
                f,
                "content is {kind}; expected str, a list of parts or None"
            ),
            Self::Part(kind) => write!(f, "a part is {kind}; expected a dict with a type"),
        }
    }
}

/// What one message says: its text parts, or why it is none, which matters only where it counts.
#[derive(Debug)]
pub struct Content<T>(Result<Option<T>, Problem>);

impl<T> Default for Content<T> {
    fn default() -> Self {
        Self(Ok(None))
    }
}

impl<T: Lines> Content<T> {
    /// A content that is one text.
    pub fn text(text: T) -> Self {
        Self(Ok(Some(text)))
    }

    /// A content of another kind.
    pub fn wrong(kind: String) -> Self {
        Self(Err(Problem::Content(kind)))
    }

    /// Adds a part that is a text itself.
    pub fn add(&mut self, part: T) {
        if let Ok(text) = &mut self.0 {
            append(text, part);
        }
    }

    /// Adds a part that says of what type it is; those of other types than text do not count.
    pub fn add_part(&mut self, kind: Option<&str>, text: Option<T>) {
        match (kind, text) {
            (Some("text" | "input_text"), Some(text)) => self.add(text),
            (Some("text" | "input_text"), None) => self.fail(Problem::NoText),
            _ => {}
        }
    }

    /// Notes that a part is none, unless one before was.
    pub fn fail(&mut self, problem: Problem) {
        if self.0.is_ok() {
            self.0 = Err(problem);
        }
    }
}

/// The rule: contents of the roles that count, in order, one on each line.
pub struct Chat<F, T> {
    counts: F,
    last_only: bool,
    text: Option<T>,
}

impl<F: Fn(&str) -> bool, T: Lines> Chat<F, T> {
    /// A chat of which messages of the roles that `counts` tells count, or the last of them only.
    pub fn new(counts: F, last_only: bool) -> Self {
        Self {
            counts,
            last_only,
            text: None,
        }
    }

    /// Reads the next message.
    pub fn message(&mut self, role: Option<&str>, content: Content<T>) -> Result<(), Problem> {
        if !(self.counts)(role.ok_or(Problem::NoRole)?) {
            return Ok(());
        }
        // A message of several parts counts even if all are empty, for there is a line break
        // between them.
        if let Some(text) = content.0?.filter(|text| !text.is_empty()) {
            if self.last_only {
                self.text = None;
            }
            append(&mut self.text, text);
        }
        Ok(())
    }

    /// What counts; `None` if nothing does.
    pub fn finish(self) -> Option<T> {
        self.text
    }
}

/// What the user wrote in a JSON list of messages, one message on each line; empty if there is
/// nothing. Put together while the messages are read.
#[derive(Debug)]
pub struct ChatText<'a>(pub Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for ChatText<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Messages;
        impl<'de> Visitor<'de> for Messages {
            type Value = ChatText<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of messages")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut chat = Chat::new(|role| role == ROLE, false);
                while let Some(Message(role, content)) = list.next_element()? {
                    let role = role.text();
                    chat.message(role.as_deref(), content.content())
                        .map_err(de::Error::custom)?;
                }
                Ok(ChatText(chat.finish().unwrap_or_default()))
            }
        }
        deserializer.deserialize_seq(Messages)
    }
}

/// Role and content of one message. Fields that routing does not read are passed over.
struct Message<'a>(Json<'a>, Json<'a>);

impl<'de: 'a, 'a> Deserialize<'de> for Message<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Message<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a message with role and content")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let (mut role, mut content) = (None, None);
                while let Some(name) = map.next_key::<Json<'_>>()? {
                    let (field, name) = match name.text().as_deref() {
                        Some("role") => (&mut role, "role"),
                        Some("content") => (&mut content, "content"),
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    if field.replace(map.next_value()?).is_some() {
                        return Err(de::Error::duplicate_field(name));
                    }
                }
                let or_null = |value: Option<Json<'de>>| value.unwrap_or(Json::Null);
                Ok(Message(or_null(role), or_null(content)))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// A value of JSON, as far as the rule looks into it.
enum Json<'a> {
    Null,
    Text(Cow<'a, str>),
    /// A list, read as the parts of a content.
    List(Content<Cow<'a, str>>),
    /// An object, read as a part: its type and text, where they are strings.
    Part(Option<Cow<'a, str>>, Option<Cow<'a, str>>),
    Number,
    Boolean,
}

impl<'a> Json<'a> {
    fn text(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    fn content(self) -> Content<Cow<'a, str>> {
        match self {
            Self::Null => Content::default(),
            Self::Text(text) => Content::text(text),
            Self::List(parts) => parts,
            other => Content::wrong(other.kind().into()),
        }
    }

    fn add_to(self, content: &mut Content<Cow<'a, str>>) {
        match self {
            Self::Text(text) => content.add(text),
            Self::Part(kind, text) => content.add_part(kind.as_deref(), text),
            other => content.fail(Problem::Part(other.kind().into())),
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Part(..) => "an object",
            Self::Number => "a number",
            Self::Boolean => "a boolean",
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Json<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Json<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Json::Null)
            }

            fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
                Ok(Json::Boolean)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
                Ok(Json::Number)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
                Ok(Json::Number)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
                Ok(Json::Number)
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Json::Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Json::Text(Cow::Owned(text.to_owned())))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut parts = Content::default();
                while let Some(part) = list.next_element::<Json<'de>>()? {
                    part.add_to(&mut parts);
                }
                Ok(Json::List(parts))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let (mut kind, mut text) = (None, None);
                while let Some(name) = map.next_key::<Json<'_>>()? {
                    match name.text().as_deref() {
                        Some("type") => kind = map.next_value::<Json<'_>>()?.text(),
                        Some("text") => text = map.next_value::<Json<'_>>()?.text(),
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(Json::Part(kind, text))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(json: &str) -> Result<String, serde_json::Error> {
        serde_json::from_str::<ChatText<'_>>(json).map(|chat| chat.0.into_owned())
    }

    #[test]
    fn only_what_the_user_wrote_counts() {
        let json = r#"[
            {"role": "system", "content": "You are helpful."},
            {"role": "user", "content": "one\ntwo", "name": "x"},
            {"role": "assistant", "content": null, "tool_calls": [{"id": "1"}]},
            {"role": "user", "content": [
                {"type": "text", "text": "three"},
                {"type": "image_url", "image_url": {"url": "data:"}, "text": 3},
                "four"
            ]},
            {"role": "user"},
            {"role": "user", "content": ""},
            {"content": {"what routing": "does not look at"}, "role": "tool"}
        ]"#;
        assert_eq!(text(json).unwrap(), "one\ntwo\nthree\nfour");
    }

    #[test]
    fn messages_of_another_shape_are_refused() {
        for (json, message) in [
            (r#"[{"content": "no role"}]"#, "no role"),
            (r#"[{"role": null, "content": "a"}]"#, "no role"),
            (r#"[{"role": "user", "content": 3}]"#, "content is a number"),
            (
                r#"[{"role": "user", "content": {}}]"#,
                "content is an object",
            ),
            (r#"[{"role": "user", "content": [[]]}]"#, "a part is a list"),
            (
                r#"[{"role": "user", "content": [{"type": "text"}]}]"#,
                "a text part without text",
            ),
            (
                r#"[{"role": "user", "role": "user"}]"#,
                "duplicate field `role`",
            ),
            (r#"[["user", "a"]]"#, "invalid type: sequence"),
            (r#"["user"]"#, "invalid type: string"),
        ] {
            let error = text(json).unwrap_err().to_string();
            assert!(error.starts_with(message), "{json}: {error}");
        }
    }

    #[test]
    fn the_last_message_that_says_something_may_count_alone() {
        let mut chat = Chat::new(|role| role != "system", true);
        for (role, content) in [("user", "a"), ("tool", "b"), ("system", "c"), ("user", "")] {
            chat.message(Some(role), Content::text(Cow::Borrowed(content)))
                .unwrap();
        }
        assert_eq!(chat.finish().as_deref(), Some("b"));
    }
}
