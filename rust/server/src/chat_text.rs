//! Chat messages to the text that is routed on: what the user wrote, and nothing else.
//!
//! The rule of Python's `chat_text`: system prompts and tool results are the same for every request
//! of a harness, or follow from the route taken; routed on, they would drown the question.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};

use crate::question::Text;

/// One message of a chat. Fields that routing does not read are passed over.
#[derive(Deserialize)]
pub struct Message<'a> {
    #[serde(borrow)]
    role: Text<'a>,
    #[serde(borrow, default)]
    content: Content<'a>,
}

/// The text parts of a message, in order.
#[derive(Default)]
struct Content<'a>(Vec<Cow<'a, str>>);

#[derive(Deserialize)]
#[serde(untagged)]
enum Part<'a> {
    Plain(String),
    Typed {
        #[serde(borrow)]
        r#type: Option<Cow<'a, str>>,
        text: Option<String>,
    },
}

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
                Ok(Content(vec![Cow::Borrowed(text)]))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Content(vec![Cow::Owned(text.to_owned())]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Self::Value, A::Error> {
                let mut texts = Vec::new();
                while let Some(part) = parts.next_element::<Part<'de>>()? {
                    match part {
                        Part::Plain(text) => texts.push(Cow::Owned(text)),
                        Part::Typed { r#type, text } => {
                            if let Some("text" | "input_text") = r#type.as_deref() {
                                let missing = || de::Error::custom("a text part without text");
                                texts.push(Cow::Owned(text.ok_or_else(missing)?));
                            }
                        }
                    }
                }
                Ok(Content(texts))
            }
        }
        deserializer.deserialize_any(Contents)
    }
}

/// The contents of the user's messages, one on each line. Empty if there are none.
pub fn chat_text(messages: Vec<Message<'_>>) -> Cow<'_, str> {
    let users = messages.into_iter().filter(|m| m.role.0 == "user");
    // A message of several parts is joined first: one whose parts are all empty still counts,
    // if a line break between them makes it non-empty.
    let mut contents = users
        .map(|message| {
            let mut parts = message.content.0;
            match parts.len() {
                0 => Cow::Borrowed(""),
                1 => parts.remove(0),
                _ => Cow::Owned(parts.join("\n")),
            }
        })
        .filter(|content| !content.is_empty());
    let Some(first) = contents.next() else {
        return Cow::Borrowed("");
    };
    contents.fold(first, |text, content| {
        Cow::Owned(text.into_owned() + "\n" + &content)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(json: &str) -> Result<String, serde_json::Error> {
        serde_json::from_str::<Vec<Message<'_>>>(json).map(|m| chat_text(m).into_owned())
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
