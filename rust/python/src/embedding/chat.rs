//! `chat_text`: messages as Python has them, one by one to the core's rule.

use std::borrow::Cow;
use std::sync::Arc;

use arrow_array::builder::{ArrayBuilder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, ListArray, StringArray};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyMapping, PySequence, PyString};
use pyo3_arrow::PyArray;
use pyo3_arrow::input::AnyArray;
use uniroute_core::text::chat::{Chat, Content, Lines, Problem, ROLE};

use crate::checks::scalars::{strings, wrong};
use crate::errors::{exception, wrong_type};

/// Python strings that are still to be joined: as they are, so that one that is not valid Unicode
/// comes through.
struct Strings<'py>(Vec<Bound<'py, PyString>>);

impl Lines for Strings<'_> {
    fn is_empty(&self) -> bool {
        matches!(&*self.0, [text] if text.len().is_ok_and(|length| length == 0))
    }

    fn add(&mut self, more: Self) {
        self.0.extend(more.0);
    }
}

fn one<'py>(text: &Bound<'py, PyString>) -> Strings<'py> {
    Strings(vec![text.clone()])
}

/// What a value is, in words.
fn kind(value: &Bound<'_, PyAny>) -> PyResult<String> {
    Ok(format!("a {}", value.get_type().name()?))
}

/// The field of a message or part, if it is a string.
fn field<'py>(map: &Bound<'py, PyMapping>, name: &str) -> PyResult<Option<Bound<'py, PyString>>> {
    let value = map.call_method1(intern!(map.py(), "get"), (name,))?;
    Ok(value.cast_into::<PyString>().ok())
}

/// A string as the rule reads it; one that is not valid Unicode is none that it knows.
fn known<'a>(text: Option<&'a Bound<'_, PyString>>) -> Option<Cow<'a, str>> {
    text.map(|text| text.to_string_lossy())
}

fn content<'py>(message: &Bound<'py, PyMapping>) -> PyResult<Content<Strings<'py>>> {
    let given = message.call_method1(intern!(message.py(), "get"), ("content",))?;
    if given.is_none() {
        return Ok(Content::default());
    }
    if let Ok(text) = given.cast::<PyString>() {
        return Ok(Content::text(one(text)));
    }
    let Ok(parts) = given.cast::<PySequence>() else {
        return Ok(Content::wrong(kind(&given)?));
    };
    let mut content = Content::default();
    for part in parts.try_iter()? {
        let part = part?;
        if let Ok(text) = part.cast::<PyString>() {
            content.add(one(text));
        } else if let Ok(part) = part.cast::<PyMapping>() {
            let text = field(part, "text")?.as_ref().map(one);
            content.add_part(known(field(part, "type")?.as_ref()).as_deref(), text);
        } else {
            content.fail(Problem::Part(kind(&part)?));
        }
    }
    Ok(content)
}

/// One text of many messages: `chat_text` of `uniroute_fast`, which says what is refused.
#[pyfunction]
fn chat_text<'py>(
    py: Python<'py>,
    messages: &Bound<'py, PyAny>,
    roles: &Bound<'py, PyAny>,
    last_only: bool,
) -> PyResult<Bound<'py, PyAny>> {
    let roles = match roles.cast::<PyString>() {
        Ok(role) => vec![role.to_string_lossy().into_owned()],
        Err(_) => strings("roles", roles)?,
    };
    let expected = "a list of role/content dicts";
    let single = messages.is_instance_of::<PyString>()
        || messages.is_instance_of::<PyBytes>()
        || messages.is_instance_of::<PyByteArray>()
        || messages.cast::<PyMapping>().is_ok();
    let Some(all) = messages.try_iter().ok().filter(|_| !single) else {
        return Err(wrong(messages, "messages", expected));
    };
    let mut chat = Chat::new(|role| roles.iter().any(|one| one == role), last_only);
    for (i, message) in all.enumerate() {
        let message = message?;
        let place = || format!("messages[{i}]");
        let message = message
            .cast::<PyMapping>()
            .map_err(|_| wrong(&message, &place(), "a role/content dict"))?;
        let role = field(message, "role")?;
        let content = content(message)?;
        chat.message(known(role.as_ref()).as_deref(), content)
            .map_err(|problem| refused(py, &place(), &problem))?;
    }
    let texts = chat.finish().map_or_else(Vec::new, |strings| strings.0);
    PyString::new(py, "\n").call_method1(intern!(py, "join"), (texts,))
}

/// The error for a message, or what it says, that is refused.
fn refused(py: Python<'_>, place: &str, problem: &Problem) -> PyErr {
    let class = if problem.is_type() {
        "ArgumentTypeError"
    } else {
        "InvalidArgumentError"
    };
    exception(py, class, format!("{place}: {problem}"))
}

/// The texts of an Arrow column of lists of messages, whose roles and contents are strings: as
/// `chat_text` one by one. A row that is not valid UTF-8 is null, and named.
///
/// Returns
/// -------
/// texts : pyarrow.Array of strings
/// invalid : list of int
#[pyfunction]
fn chat_texts(py: Python<'_>, column: &Bound<'_, PyAny>) -> PyResult<(Py<PyAny>, Vec<usize>)> {
    let (chunks, _) = column
        .extract::<AnyArray>()?
        .into_chunked_array()?
        .into_inner();
    let (mut texts, mut invalid) = (StringBuilder::new(), Vec::new());
    for chunk in &chunks {
        let Some((lists, roles, contents)) = plain(chunk) else {
            let found = format!("an Arrow column of type {}", chunk.data_type());
            let expected = "lists of structs of role and content, both strings";
            return Err(wrong_type(py, "messages", &found, expected));
        };
        for row in 0..lists.len() {
            if lists.is_null(row) {
                texts.append_null();
                continue;
            }
            let offsets = lists.value_offsets();
            let messages = offsets[row] as usize..offsets[row + 1] as usize;
            let text = (|| {
                let mut chat = Chat::new(|role| role == ROLE, false);
                for i in messages {
                    let content = match valid(contents, i)? {
                        Some(text) => Content::text(Cow::Borrowed(text)),
                        None => Content::default(),
                    };
                    chat.message(valid(roles, i)?, content).ok()?;
                }
                Some(chat.finish().unwrap_or_default())
            })();
            if text.is_none() {
                invalid.push(texts.len());
            }
            texts.append_option(text);
        }
    }
    let texts: ArrayRef = Arc::new(texts.finish());
    let texts = PyArray::from_array_ref(texts);
    let texts = texts.to_pyarrow(py)?.unbind();
    Ok((texts, invalid))
}

/// The parts of a column of messages.
fn plain(chunk: &ArrayRef) -> Option<(&ListArray, &StringArray, &StringArray)> {
    let lists = chunk.as_list_opt::<i32>()?;
    let messages = lists.values().as_struct_opt()?;
    let field = |name| messages.column_by_name(name)?.as_string_opt::<i32>();
    Some((lists, field("role")?, field("content")?))
}

/// A value of a column that comes from outside, if it is valid UTF-8; within, `None` for a null.
#[allow(clippy::option_option)]
fn valid(column: &StringArray, row: usize) -> Option<Option<&str>> {
    if column.is_null(row) {
        return Some(None);
    }
    std::str::from_utf8(column.value(row).as_bytes())
        .ok()
        .map(Some)
}

/// Adds this file's part to the module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(chat_text, m)?)?;
    m.add_function(wrap_pyfunction!(chat_texts, m)?)
}
