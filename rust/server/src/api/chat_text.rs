//! Chat messages to the text that is routed on: what the user wrote, and nothing else.
//!
//! The rule of Python's `chat_text`: system prompts and tool results are the same for every request
//! of a harness, or follow from the route taken; routed on, they would drown the question.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::api::question::Text;

/// The contents of the user's messages, one on each line; empty if there are none. Put together while
/// the messages are read, so that it never takes more memory than they are long.
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

            fn visit_seq<A: SeqAccess<'de>>(
                self,
                mut messages: A,
            ) -> Result<Self::Value, A::Error> {
                let mut lines = Lines::default();
                while let Some(message) = messages.next_element::<Message<'de>>()? {
                    let content = message.content.0;
                    // A message of several parts counts even if all are empty, for there is a line
                    // break between them.
                    if message.role.0 == "user" && !content.is_empty() {
                        lines.push(content);
                    }
                }
                Ok(ChatText(lines.0.unwrap_or_default()))
            }
        }
        deserializer.deserialize_seq(Messages)
    }
}

/// Texts, one on each line; `None` before the first.
#[derive(Default)]
struct Lines<'a>(Option<Cow<'a, str>>);

impl<'a> Lines<'a> {
    fn push(&mut self, line: Cow<'a, str>) {
        match &mut self.0 {
            None => self.0 = Some(line),
            Some(lines) => {
                let lines = lines.to_mut();
                lines.push('\n');
                lines.push_str(&line);
            }
        }
    }
}

/// One message of a chat. Fields that routing does not read are passed over.
#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    role: Text<'a>,
    #[serde(borrow, default)]
    content: Content<'a>,
}

/// The text parts of a message, in order.
#[derive(Default)]
struct Content<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Content<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Contents;
        impl<'de> Visitor<'de> for Contents {
            type Value = Content<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("content: a string, a list of parts or null")
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Content::default())
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Content(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Content(Cow::Owned(text.to_owned())))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Self::Value, A::Error> {
                let mut lines = Lines::default();
                while let Some(Part(text)) = parts.next_element()? {
                    if let Some(text) = text {
                        lines.push(text);
                    }
                }
                Ok(Content(lines.0.unwrap_or_default()))
            }
        }
        deserializer.deserialize_any(Contents)
    }
}

/// One part of a message's content: its text, if it is one of text.
struct Part<'a>(Option<Cow<'a, str>>);

impl<'de: 'a, 'a> Deserialize<'de> for Part<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parts;
        impl<'de> Visitor<'de> for Parts {
            type Value = Part<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, or a part with a type")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Part(Some(Cow::Borrowed(text))))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Part(Some(Cow::Owned(text.to_owned()))))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let (mut kind, mut text) = (None::<Text<'_>>, None::<Text<'_>>);
                while let Some(Text(name)) = map.next_key()? {
                    match &*name {
                        "type" => kind = map.next_value()?,
                        "text" => text = map.next_value()?,
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                match kind.as_ref().map(|kind| &*kind.0) {
                    Some("text" | "input_text") => {
                        let missing = || de::Error::custom("a text part without text");
                        text.ok_or_else(missing).map(|text| Part(Some(text.0)))
                    }
                    _ => Ok(Part(None)),
                }
            }
        }
        deserializer.deserialize_any(Parts)
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
                {"type": "image_url", "image_url": {"url": "data:"}},
                "four"
            ]},
            {"role": "user"},
            {"role": "user", "content": ""}
        ]"#;
        assert_eq!(text(json).unwrap(), "one\ntwo\nthree\nfour");
    }

    #[test]
    fn messages_of_another_shape_are_refused() {
        for json in [
            r#"[{"content": "no role"}]"#,
            r#"[{"role": "user", "content": 3}]"#,
            r#"[{"role": "user", "content": [{"type": "text"}]}]"#,
            r#"["user"]"#,
        ] {
            assert!(text(json).is_err(), "{json}");
        }
    }
}
