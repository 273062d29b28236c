//! The content of a file: a manifest and named tensors.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::error::Result;
use crate::file::errors::damaged;
use crate::file::tensor::{Element, Tensor};

/// The format that is written and read. It stays 1 until the first release.
pub const FORMAT: u64 = 1;

/// The one key of the safetensors metadata: with a single key the bytes of a file depend on its
/// content alone.
pub(super) const KEY: &str = "uniroute";

/// The content of a file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Artifact {
    /// Everything that is not a tensor, as JSON text.
    pub manifest: String,
    /// Tensors by name.
    pub tensors: BTreeMap<String, Tensor>,
}

/// What the safetensors metadata hold under [`KEY`].
#[derive(Serialize, Deserialize)]
pub(super) struct Header<'a> {
    pub checksum: String,
    pub format: u64,
    /// Kept as text: the checksum is that of its bytes, and it is parsed once, by whoever knows it.
    #[serde(borrow)]
    pub manifest: &'a RawValue,
}

impl Artifact {
    /// Takes out a tensor that must be there, with this type and number of dimensions.
    pub fn take<T: Element, const N: usize>(&mut self, name: &str) -> Result<([usize; N], Vec<T>)> {
        let (shape, tensor) = self.take_tensor::<T, N>(name)?;
        Ok((shape, tensor.values().unwrap_or_default()))
    }

    /// As [`Self::take`], the values left where they lie.
    pub fn take_tensor<T: Element, const N: usize>(
        &mut self,
        name: &str,
    ) -> Result<([usize; N], Tensor)> {
        let expected = || format!("a {:?} tensor of {N} dimensions", T::DTYPE);
        let tensor = self
            .tensors
            .remove(name)
            .ok_or_else(|| damaged(format!("tensor {name:?} is missing"), expected()))?;
        match tensor.shape().try_into() {
            Ok(shape) if tensor.dtype() == T::DTYPE => Ok((shape, tensor)),
            _ => {
                let found = format!(
                    "tensor {name:?} is {:?} {:?}",
                    tensor.dtype(),
                    tensor.shape()
                );
                Err(damaged(found, expected()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::fs::File;
    use std::path::Path;

    use safetensors::tensor::TensorView;

    use super::*;
    use crate::error::Error;
    use crate::file::limits::{MOST_VALUES, check_values};

    fn sample() -> Artifact {
        let mut tensors = BTreeMap::new();
        tensors.insert(
            "a".to_owned(),
            Tensor::new(&[2, 2], [1.0f32, -0.0, f32::MIN, 3.5]),
        );
        tensors.insert("b".to_owned(), Tensor::new(&[3], [1i8, -2, 3]));
        tensors.insert("empty".to_owned(), Tensor::new::<f64>(&[0, 4], []));
        Artifact {
            manifest: r#"{"n":3,"names":["x","é"]}"#.to_owned(),
            tensors,
        }
    }

    fn read(bytes: &[u8]) -> Result<Artifact> {
        Artifact::from_bytes(bytes)?.read()
    }

    #[test]
    fn what_is_saved_is_loaded_and_the_bytes_depend_on_content_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pool.uniroute");
        sample().save(&path).unwrap();
        assert_eq!(Artifact::load(&path).unwrap().read().unwrap(), sample());
        assert_eq!(std::fs::read(&path).unwrap(), sample().to_bytes().unwrap());
        assert_eq!(
            std::fs::read_dir(folder.path()).unwrap().count(),
            1,
            "no file left beside it"
        );
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_is_refused() {
        let bytes = sample().to_bytes().unwrap();
        for end in 0..bytes.len() {
            assert!(read(&bytes[..end]).is_err(), "cut at {end}");
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1 << bit;
                // A flip that leaves the content as it was (a space of padding) may pass.
                if let Ok(artifact) = read(&bytes) {
                    assert_eq!(artifact, sample(), "bit {bit} of byte {at}");
                }
            }
        }
    }

    #[test]
    fn a_file_of_another_format_or_another_program_says_so() {
        let views: [(&str, TensorView<'_>); 0] = [];
        let other = safetensors::serialize(views, None).unwrap();
        let message = Artifact::from_bytes(&other).unwrap_err().to_string();
        assert!(message.contains("another program"), "{message}");
        for header in [
            r#"{"format": 99}"#,
            r#"{"format": 99, "checksum": "0", "manifest": {}}"#,
        ] {
            let views: [(&str, TensorView<'_>); 0] = [];
            let other = HashMap::from([(KEY.to_owned(), header.to_owned())]);
            let other = safetensors::serialize(views, Some(other)).unwrap();
            let message = Artifact::from_bytes(&other).unwrap_err().to_string();
            assert!(
                message.contains("its format is 99; expected format 1"),
                "{message}"
            );
        }
    }

    #[test]
    fn a_tensor_of_another_type_or_shape_is_refused() {
        assert!(sample().take::<f32, 2>("a").is_ok());
        for error in [
            sample().take::<f64, 2>("a").unwrap_err(),
            sample().take::<f32, 1>("a").unwrap_err(),
            sample().take::<f32, 1>("missing").unwrap_err(),
        ] {
            assert!(matches!(error, Error::Artifact { .. }));
        }
    }

    #[test]
    fn a_file_cut_short_after_its_header_was_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pool.uniroute");
        sample().save(&path).unwrap();
        let unread = Artifact::load(&path).unwrap();
        let length = std::fs::metadata(&path).unwrap().len();
        let file = File::options().write(true).open(&path).unwrap();
        file.set_len(length - 1).unwrap();
        let message = unread.read().unwrap_err().to_string();
        assert!(message.contains("cut short"), "{message}");
    }

    #[test]
    fn json_of_too_many_values_is_refused_before_it_is_parsed() {
        for (json, values) in [
            ("[]", 2),
            (r#"[1, "a,[{\",", 3]"#, 4),
            (r#"{"a": {"b": []}}"#, 4),
        ] {
            assert!(
                check_values("it", json.as_bytes(), values).is_ok(),
                "{json}"
            );
            let refused = check_values("it", json.as_bytes(), values - 1);
            assert!(
                refused.unwrap_err().to_string().contains("values"),
                "{json}"
            );
        }
        let many = format!("[{}0]", "0,".repeat(MOST_VALUES));
        let size = (many.len() as u64).to_le_bytes();
        let file = [&size[..], many.as_bytes()].concat();
        let message = read(&file).unwrap_err().to_string();
        assert!(
            message.contains("its header holds 4194306 values"),
            "{message}"
        );
    }

    #[test]
    fn errors_show_the_beginning_of_what_a_file_holds() {
        let message = damaged("é".repeat(1_000_000), "x").to_string();
        assert!(message.len() < 700 && message.contains("é [1999640 bytes left out] é"));
        let path = Path::new("/nonexistent/\u{1b}[2J");
        let message = Artifact::load(path).unwrap_err().to_string();
        assert!(
            message.starts_with("/nonexistent/\\u{1b}[2J: "),
            "{message}"
        );
    }

    #[test]
    fn a_folder_that_does_not_exist_is_an_io_error_naming_the_path() {
        let error = sample()
            .save(Path::new("/nonexistent/pool.uniroute"))
            .unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("/nonexistent/pool.uniroute: ")
        );
    }
}
