//! Weights as a file that `longtake detect` needs nothing else for: safetensors with settings and classes as metadata.

use longtake_shared::config::RunConfig;
use longtake_shared::hint::Failure;
use longtake_shared::role::{CLASSES_METADATA, SETTINGS_METADATA};
use serde_json::{Map, Value, json};

/// The bytes before the header: its length as a little-endian u64.
const PREFIX: usize = 8;
const METADATA: &str = "__metadata__";

/// The same tensors with the settings they were trained with, and the names of the classes.
///
/// Tensors' offsets count from the end of the header, so a longer header moves no tensor within the file's data.
pub(super) fn with_metadata(weights: &[u8], config: &RunConfig, classes: &[String]) -> Result<Vec<u8>, Failure> {
    let (header, data) = split(weights).ok_or_else(|| {
        Failure::new("the weights of the checkpoint are not safetensors")
            .hint("use the version of Longtake that wrote them")
    })?;
    let mut header: Map<String, Value> = header;
    let settings = serde_json::to_string(config)
        .map_err(|error| Failure::new(format!("the settings have no JSON form: {error}")))?;
    let metadata = header.entry(METADATA).or_insert_with(|| json!({}));
    metadata[SETTINGS_METADATA] = settings.into();
    metadata[CLASSES_METADATA] = json!(classes).to_string().into();
    let mut text = Value::Object(header).to_string().into_bytes();
    // Readers map the tensors, so they must stay aligned.
    text.resize(text.len().next_multiple_of(PREFIX), b' ');
    let mut file = Vec::with_capacity(PREFIX + text.len() + data.len());
    file.extend_from_slice(&(text.len() as u64).to_le_bytes());
    file.extend_from_slice(&text);
    file.extend_from_slice(data);
    Ok(file)
}

fn split(weights: &[u8]) -> Option<(Map<String, Value>, &[u8])> {
    let (length, rest) = weights.split_first_chunk::<PREFIX>()?;
    let (header, data) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    match serde_json::from_slice(header) {
        Ok(Value::Object(header)) => Some((header, data)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &Value, data: &[u8]) -> Vec<u8> {
        let text = header.to_string();
        [&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), data].concat()
    }

    #[test]
    fn settings_and_classes_come_beside_unchanged_tensors() {
        let tensor = json!({ "dtype": "F32", "shape": [1], "data_offsets": [0, 4] });
        let given = file(&json!({ "__metadata__": { "format": "pt" }, "a.weight": tensor }), &[1, 2, 3, 4]);
        let config = RunConfig::default();
        let written = with_metadata(&given, &config, &["dive".into(), "swim".into()]).unwrap();
        let (header, data) = split(&written).unwrap();
        assert_eq!((data, &header["a.weight"]), (&[1, 2, 3, 4][..], &tensor));
        assert_eq!((written.len() - data.len()) % PREFIX, 0);
        let metadata = &header[METADATA];
        assert_eq!(metadata["format"], "pt");
        assert_eq!(metadata[CLASSES_METADATA], r#"["dive","swim"]"#);
        let settings = metadata[SETTINGS_METADATA].as_str().unwrap();
        assert_eq!(serde_json::from_str::<RunConfig>(settings).unwrap(), config);
    }

    #[test]
    fn other_files_are_refused() {
        for bytes in [&b""[..], b"12345678", &[255; 20], &file(&json!([]), b"")] {
            assert!(with_metadata(bytes, &RunConfig::default(), &[]).is_err());
        }
    }
}
