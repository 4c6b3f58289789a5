//! One layer of settings as a flat list: dotted key, value, and where it was written.

use std::collections::BTreeMap;
use std::path::Path;

use ::config::{Map, Value, ValueKind};
use serde_json::Value as Json;

use super::error::ConfigError;

/// What the names of environment variables begin with: `LONGTAKE__DATA__FPS` is `data.fps`.
const PREFIX: &str = "LONGTAKE__";

/// One setting as a layer gives it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) value: Json,
    pub(super) origin: String,
}

/// Settings of one source, in the order they were written.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Layer(pub(super) Vec<Entry>);

impl Layer {
    /// Every leaf of a tree of settings, all from one origin.
    pub(super) fn of_tree(tree: &Json, origin: &str) -> Self {
        let mut entries = Vec::new();
        flatten(String::new(), tree, &mut |key, value| {
            entries.push(Entry { key, value: value.clone(), origin: origin.to_owned() });
        });
        Self(entries)
    }

    /// A TOML file; each setting's origin is `path:line`.
    pub(super) fn of_file(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let syntax = |error: &toml::de::Error| ConfigError::Syntax {
            path: path.to_owned(),
            line: line_of(&text, error.span().map_or(0, |span| span.start)),
            message: error.message().replace('\n', ", "),
        };
        let table: toml::Table = toml::from_str(&text).map_err(|error| syntax(&error))?;
        let spans = toml::de::DeTable::parse(&text).map_err(|error| syntax(&error))?;
        let mut lines = BTreeMap::new();
        key_lines("", spans.get_ref(), &text, &mut lines);

        let mut layer = Self::of_tree(&json_of(&toml::Value::Table(table)), "");
        layer.0.sort_by_key(|entry| lines.get(&entry.key).copied());
        for entry in &mut layer.0 {
            let line = lines.get(&entry.key).copied().unwrap_or(1);
            entry.origin = format!("{}:{line}", path.display());
        }
        Ok(layer)
    }

    /// The variables that begin with `LONGTAKE__`, sorted by name.
    pub(super) fn of_environment(
        variables: impl Iterator<Item = (String, String)>,
        texts: &dyn Fn(&str) -> bool,
    ) -> Self {
        let named: BTreeMap<String, String> =
            variables.filter(|(name, _)| name.starts_with(PREFIX)).collect();
        let mut layer = Self::default();
        for (name, text) in named {
            let key = name[PREFIX.len()..].to_lowercase().replace("__", ".");
            layer.push(&key, &text, &format!("environment variable {name}"), texts);
        }
        layer
    }

    /// `key=value` as typed after `--set`.
    pub(super) fn of_sets(sets: &[String], texts: &dyn Fn(&str) -> bool) -> Result<Self, ConfigError> {
        let mut layer = Self::default();
        for set in sets {
            let (key, text) =
                set.split_once('=').ok_or_else(|| ConfigError::NotAnAssignment { text: set.clone() })?;
            layer.push(key.trim(), text.trim(), "--set", texts);
        }
        Ok(layer)
    }

    /// Adds a value that was typed: a TOML value, or a bare word; `texts` says which keys hold texts, where `7` is a name.
    fn push(&mut self, key: &str, text: &str, origin: &str, texts: &dyn Fn(&str) -> bool) {
        let parsed = toml::from_str::<toml::Table>(&format!("value = {text}"))
            .ok()
            .filter(|table| table.len() == 1)
            .and_then(|mut table| table.remove("value"));
        let value = match parsed {
            Some(toml::Value::String(string)) => Json::String(string),
            Some(value) if !texts(key) => json_of(&value),
            _ => Json::String(text.to_owned()),
        };
        flatten(key.to_owned(), &value, &mut |key, value| {
            self.0.push(Entry { key, value: value.clone(), origin: origin.to_owned() });
        });
    }
}

impl ::config::Source for Layer {
    fn clone_into_box(&self) -> Box<dyn ::config::Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ::config::ConfigError> {
        Ok(self.0.iter().map(|entry| (entry.key.clone(), value_of(&entry.value, &entry.origin))).collect())
    }
}

/// Calls `visit` for every leaf below `tree`; an empty table is a leaf (it says that a section is there).
pub(super) fn flatten(key: String, tree: &Json, visit: &mut impl FnMut(String, &Json)) {
    match tree {
        Json::Object(fields) if !fields.is_empty() || key.is_empty() => {
            for (name, value) in fields {
                let below = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                flatten(below, value, visit);
            }
        }
        leaf => visit(key, leaf),
    }
}

/// Lines of all keys of a file, counted from 1.
fn key_lines(prefix: &str, table: &toml::de::DeTable<'_>, text: &str, lines: &mut BTreeMap<String, usize>) {
    for (name, value) in table {
        let key = if prefix.is_empty() {
            name.get_ref().to_string()
        } else {
            format!("{prefix}.{}", name.get_ref())
        };
        if let toml::de::DeValue::Table(below) = value.get_ref() {
            key_lines(&key, below, text, lines);
        }
        lines.insert(key, line_of(text, name.span().start));
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

/// A TOML value as JSON; numbers that JSON has no notation for (`nan`, `inf`) become texts and are refused as such.
fn json_of(value: &toml::Value) -> Json {
    match value {
        toml::Value::String(text) => Json::String(text.clone()),
        toml::Value::Integer(number) => Json::from(*number),
        toml::Value::Float(number) => serde_json::Number::from_f64(*number)
            .map_or_else(|| Json::String(number.to_string()), Json::Number),
        toml::Value::Boolean(flag) => Json::Bool(*flag),
        toml::Value::Datetime(time) => Json::String(time.to_string()),
        toml::Value::Array(items) => items.iter().map(json_of).collect(),
        toml::Value::Table(table) => {
            Json::Object(table.iter().map(|(key, value)| (key.clone(), json_of(value))).collect())
        }
    }
}

fn value_of(json: &Json, origin: &str) -> Value {
    let kind = match json {
        Json::Null => ValueKind::Nil,
        Json::Bool(flag) => ValueKind::Boolean(*flag),
        Json::String(text) => ValueKind::String(text.clone()),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(signed), _) => ValueKind::I64(signed),
            (None, Some(unsigned)) => ValueKind::U64(unsigned),
            (None, None) => ValueKind::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::Array(items) => ValueKind::Array(items.iter().map(|item| value_of(item, origin)).collect()),
        Json::Object(fields) => ValueKind::Table(
            fields.iter().map(|(key, value)| (key.clone(), value_of(value, origin))).collect(),
        ),
    };
    Value::new(Some(&origin.to_owned()), kind)
}

/// The reverse of what a [`Layer`] hands to the layering.
pub(super) fn json_of_value(value: &Value) -> Json {
    match &value.kind {
        ValueKind::Nil => Json::Null,
        ValueKind::Boolean(flag) => Json::Bool(*flag),
        ValueKind::I64(number) => Json::from(*number),
        ValueKind::I128(number) => Json::String(number.to_string()),
        ValueKind::U64(number) => Json::from(*number),
        ValueKind::U128(number) => Json::String(number.to_string()),
        ValueKind::Float(number) => Json::from(*number),
        ValueKind::String(text) => Json::String(text.clone()),
        ValueKind::Array(items) => items.iter().map(json_of_value).collect(),
        ValueKind::Table(fields) => {
            Json::Object(fields.iter().map(|(key, value)| (key.clone(), json_of_value(value))).collect())
        }
    }
}
