//! Lists that end while they are read, so that memory does not depend on how long a body is.
//!
//! A list of two million zeros is 4 MB of JSON and many times that in memory. So whatever has one
//! value for each prompt stops at the number of prompts that a request may have, before anything is
//! made of the rest.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::value::{
    BoolDeserializer, BorrowedStrDeserializer, F64Deserializer, I64Deserializer, StrDeserializer,
    U64Deserializer, UnitDeserializer,
};
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use uniroute_core::request;

/// Stands for as many items as a request may have prompts.
const PROMPTS: usize = usize::MAX;

thread_local! {
    /// Prompts of the request that this thread is reading, at most.
    static MOST: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Runs `read` with lists of `most` prompts at most.
pub fn within<T>(most: usize, read: impl FnOnce() -> T) -> T {
    /// Puts back what was, even after a panic.
    struct Before(usize);
    impl Drop for Before {
        fn drop(&mut self) {
            MOST.set(self.0);
        }
    }
    let _before = Before(MOST.replace(most));
    read()
}

/// A list of `MOST` items at most.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(inline)]
pub struct AtMost<const MOST: usize, T>(pub Vec<T>);

/// A list with one item for each prompt.
pub type OfPrompts<T> = AtMost<PROMPTS, T>;

impl<const MOST: usize, T> Default for AtMost<MOST, T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, const MOST: usize, T: Deserialize<'de>> AtMost<MOST, T> {
    fn read<A: SeqAccess<'de>>(mut list: A) -> Result<Self, A::Error> {
        let most = if MOST == PROMPTS {
            self::MOST.get()
        } else {
            MOST
        };
        let mut all = Vec::new();
        while let Some(item) = list.next_element()? {
            if all.len() == most {
                let message = format_args!("more than {most} items; expected {most} at most");
                return Err(de::Error::custom(message));
            }
            all.push(item);
        }
        Ok(Self(all))
    }
}

impl<'de, const MOST: usize, T: Deserialize<'de>> Deserialize<'de> for AtMost<MOST, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<const MOST: usize, T>(PhantomData<T>);
        impl<'de, const MOST: usize, T: Deserialize<'de>> Visitor<'de> for Items<MOST, T> {
            type Value = AtMost<MOST, T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
                AtMost::read(list)
            }
        }
        deserializer.deserialize_seq(Items(PhantomData))
    }
}

/// One value, or a list of them.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(inline, untagged)]
pub enum OneOrList<const MOST: usize, T> {
    /// The same for all.
    Same(T),
    /// One for each.
    Each(Vec<T>),
}

/// A value for all prompts, or one for each.
pub type PerPrompt<T> = OneOrList<PROMPTS, T>;

impl<const MOST: usize, T> OneOrList<MOST, T> {
    /// The values there are.
    pub fn values(&self) -> &[T] {
        match self {
            Self::Same(value) => std::slice::from_ref(value),
            Self::Each(values) => values,
        }
    }

    /// The same, for good.
    pub fn into_values(self) -> Vec<T> {
        match self {
            Self::Same(value) => vec![value],
            Self::Each(values) => values,
        }
    }

    /// The value of one prompt.
    pub fn at(&self, prompt: usize) -> &T {
        match self {
            Self::Same(value) => value,
            Self::Each(values) => &values[prompt],
        }
    }

    /// What the core takes in place of these values.
    pub fn map<U>(&self, value: impl FnMut(&T) -> U) -> request::PerPrompt<U> {
        let mut value = value;
        match self {
            Self::Same(one) => request::PerPrompt::Same(value(one)),
            Self::Each(all) => request::PerPrompt::Each(all.iter().map(value).collect()),
        }
    }

    /// Whether there is one for each.
    pub fn is_each(&self) -> bool {
        matches!(self, Self::Each(_))
    }
}

impl<'de, const MOST: usize, T: Deserialize<'de>> Deserialize<'de> for OneOrList<MOST, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<const MOST: usize, T>(PhantomData<T>);

        /// A visit of a single value, which the type itself reads or refuses.
        macro_rules! same {
            ($($visit:ident($type:ty) => $deserializer:ident),*) => {$(
                fn $visit<E: de::Error>(self, value: $type) -> Result<Self::Value, E> {
                    T::deserialize($deserializer::new(value)).map(OneOrList::Same)
                }
            )*};
        }

        impl<'de, const MOST: usize, T: Deserialize<'de>> Visitor<'de> for Either<MOST, T> {
            type Value = OneOrList<MOST, T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value of its type, or a list of them")
            }

            same! {
                visit_bool(bool) => BoolDeserializer,
                visit_u64(u64) => U64Deserializer,
                visit_i64(i64) => I64Deserializer,
                visit_f64(f64) => F64Deserializer,
                visit_str(&str) => StrDeserializer,
                visit_borrowed_str(&'de str) => BorrowedStrDeserializer
            }

            fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
                T::deserialize(UnitDeserializer::new()).map(OneOrList::Same)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
                AtMost::<MOST, T>::read(list).map(|all| OneOrList::Each(all.0))
            }
        }
        deserializer.deserialize_any(Either(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(json: &str) -> Result<PerPrompt<u64>, serde_json::Error> {
        within(3, || serde_json::from_str(json))
    }

    #[test]
    fn lists_end_where_they_should() {
        assert!(matches!(numbers("7"), Ok(PerPrompt::Same(7))));
        assert!(matches!(numbers("[1, 2, 3]"), Ok(PerPrompt::Each(all)) if all == [1, 2, 3]));
        // The rest is not looked at: it need not even be JSON.
        let error = numbers("[1, 2, 3, 4, oops").unwrap_err().to_string();
        assert!(
            error.contains("more than 3 items; expected 3 at most"),
            "{error}"
        );
        let texts: Result<OfPrompts<String>, _> =
            within(1, || serde_json::from_str(r#"["a", "b"]"#));
        assert!(texts.is_err());
        let pairs: Result<AtMost<2, u8>, _> = serde_json::from_str("[1, 2, 3]");
        assert!(pairs.is_err());
        // Outside of a request nothing is limited.
        assert!(serde_json::from_str::<PerPrompt<u64>>("[1, 2, 3, 4]").is_ok());
    }

    #[test]
    fn a_single_value_is_of_its_type() {
        for json in ["-1", "1.5", "true", r#""7""#, "null", "{}"] {
            assert!(numbers(json).is_err(), "{json}");
        }
        let names: PerPrompt<String> = serde_json::from_str(r#""a\n""#).unwrap();
        assert!(matches!(names, PerPrompt::Same(name) if name == "a\n"));
        let names: PerPrompt<Option<u8>> = serde_json::from_str("[1, null]").unwrap();
        assert!(matches!(names, PerPrompt::Each(all) if all == [Some(1), None]));
        let weight: PerPrompt<f64> = serde_json::from_str("2").unwrap();
        assert!(matches!(weight, PerPrompt::Same(2.0)));
    }
}
