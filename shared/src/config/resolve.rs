//! Takes a file, the environment and `--set`. Gives a [`RunConfig`] whose every value knows its source.

use std::collections::BTreeMap;
use std::path::Path;

use ::config::{Config, Source as _, Value, ValueKind};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::error::ConfigError;
use super::kinds::{SECTIONS, other_owner};
use super::layers::{Layer, flatten, json_of_value};
use super::{RunConfig, SynthConfig};
use crate::hint::Hint as _;

/// The source of a value that nobody set.
const DEFAULT: &str = "default";

/// A configuration and where each of its values came from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resolved {
    /// The settings, validated.
    pub config: RunConfig,
    /// Dotted key to `default`, `file:line`, `environment variable NAME` or `--set`.
    sources: BTreeMap<String, String>,
}

/// Reads a configuration: defaults < file < environment < `--set`, then checks every rule.
///
/// Variables are named `LONGTAKE__DATA__FPS`; values of variables and of `--set` are TOML, bare words are texts.
///
/// # Errors
/// An unreadable file, unknown keys, values of another type than their key's, broken rules.
pub fn load(
    file: &Path,
    environment: impl Iterator<Item = (String, String)>,
    sets: &[String],
) -> Result<Resolved, ConfigError> {
    layered(Some(file), environment, sets)
}

/// The same for a command that needs no file: defaults < environment < `--set`.
///
/// # Errors
/// Those of [`load`].
pub fn load_without_file(
    environment: impl Iterator<Item = (String, String)>,
    sets: &[String],
) -> Result<Resolved, ConfigError> {
    layered(None, environment, sets)
}

fn layered(
    file: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
    sets: &[String],
) -> Result<Resolved, ConfigError> {
    let schema = Schema::new();
    let file = file.map_or_else(|| Ok(Layer::default()), Layer::of_file)?;
    schema.check(&file)?;
    let [environment, sets] = typed(&schema, environment, sets)?;
    resolve(&schema, [file, environment, sets])
}

/// The layers of the environment and of `--set`, checked.
fn typed(
    schema: &Schema,
    environment: impl Iterator<Item = (String, String)>,
    sets: &[String],
) -> Result<[Layer; 2], ConfigError> {
    let texts = |key: &str| schema.is_text(key);
    let layers = [Layer::of_environment(environment, &texts), Layer::of_sets(sets, &texts)?];
    for layer in &layers {
        schema.check(layer)?;
    }
    Ok(layers)
}

fn resolve(schema: &Schema, layers: impl IntoIterator<Item = Layer>) -> Result<Resolved, ConfigError> {
    let mut builder = Config::builder().add_source(Layer::of_tree(&tree_of(&RunConfig::default()), DEFAULT));
    for layer in layers {
        builder = builder.add_source(layer);
    }
    let merge = |error: ::config::ConfigError| ConfigError::Stored { message: error.to_string() };
    let root = builder.build().and_then(|built| built.collect()).map_err(merge)?;
    let root = Value::new(None, ValueKind::Table(root));

    let has_synth = lookup(&root, "synth").is_some_and(|value| matches!(value.kind, ValueKind::Table(_)));
    let start = RunConfig { synth: has_synth.then(SynthConfig::default), ..RunConfig::default() };
    let mut tree = tree_of(&start);
    let mut sources = BTreeMap::new();
    for key in schema.leaves.keys() {
        if !has_synth && key.starts_with("synth.") {
            continue;
        }
        let (value, source) = match lookup(&root, key) {
            Some(value) => (json_of_value(value), value.origin().unwrap_or(DEFAULT)),
            None => (schema.leaves[key].clone(), DEFAULT),
        };
        replace(&mut tree, key, value);
        sources.insert(key.clone(), source.to_owned());
    }
    let config: RunConfig =
        serde_json::from_value(tree).map_err(|error| ConfigError::Stored { message: error.to_string() })?;
    let selected = config.model.kind.name();
    let set = sources.iter().filter(|(_, source)| *source != DEFAULT);
    for (key, origin) in set {
        if let Some(owner) = other_owner(key, selected, &SECTIONS) {
            let (key, origin) = (key.clone(), origin.clone());
            return Err(ConfigError::OtherKind { key, origin, owner, selected });
        }
    }
    if let Err(rule) = config.validate() {
        return Err(ConfigError::broken(rule, &sources));
    }
    Ok(Resolved { config, sources })
}

impl From<RunConfig> for Resolved {
    /// Settings of which nobody knows the source.
    fn from(config: RunConfig) -> Self {
        Self { config, sources: BTreeMap::new() }
    }
}

impl Resolved {
    /// These settings with the environment and `--set` on top, as they change those of a file.
    ///
    /// # Errors
    /// Those of [`load`].
    pub fn changed(
        &self,
        environment: impl Iterator<Item = (String, String)>,
        sets: &[String],
    ) -> Result<Self, ConfigError> {
        let schema = Schema::new();
        let [environment, sets] = typed(&schema, environment, sets)?;
        let below = Layer::of_tree(&tree_of(&self.config), DEFAULT);
        let mut changed = resolve(&schema, [below, environment, sets])?;
        for (key, source) in &mut changed.sources {
            if let Some(known) = self.sources.get(key).filter(|_| source == DEFAULT) {
                source.clone_from(known);
            }
        }
        Ok(changed)
    }

    /// Where a value came from; nothing for a default.
    pub(super) fn source(&self, key: &str) -> Option<&str> {
        self.sources.get(key).map(String::as_str).filter(|source| *source != DEFAULT)
    }

    /// All settings in the order of their sections: key, value as TOML, source.
    pub fn rows(&self) -> Vec<(String, String, String)> {
        rows_of(&self.config)
            .into_iter()
            .map(|(key, value)| {
                let source = self.sources.get(&key).cloned().unwrap_or_else(|| DEFAULT.to_owned());
                (key, value, source)
            })
            .collect()
    }

    /// The whole configuration as a file that `load` reads back to the same settings.
    pub fn to_toml(&self) -> String {
        toml::to_string(&self.config).expect("settings are tables, numbers, texts and lists")
    }

    /// Settings and sources, as a run stores them.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("settings and texts have a JSON form")
    }

    /// What [`Self::to_json`] wrote.
    ///
    /// # Errors
    /// Text of another layout, or settings that break a rule.
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        let resolved: Self =
            serde_json::from_str(text).map_err(|error| ConfigError::Stored { message: error.to_string() })?;
        if let Err(rule) = resolved.config.validate() {
            return Err(ConfigError::broken(rule, &resolved.sources));
        }
        Ok(resolved)
    }
}

/// Every setting as (dotted key, TOML value), in the order of the sections.
pub(super) fn rows_of(config: &RunConfig) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    flatten(String::new(), &tree_of(config), &mut |key, value| {
        if !value.is_null() {
            rows.push((key, toml_text(value)));
        }
    });
    rows
}

/// A value as it would be written in a file.
fn toml_text(value: &Json) -> String {
    toml::Value::try_from(value).map_or_else(|_| value.to_string(), |value| value.to_string())
}

fn tree_of(config: &RunConfig) -> Json {
    let mut tree = serde_json::to_value(config).expect("settings have a JSON form");
    if config.synth.is_none()
        && let Some(fields) = tree.as_object_mut()
    {
        fields.shift_remove("synth");
    }
    tree
}

fn lookup<'v>(root: &'v Value, key: &str) -> Option<&'v Value> {
    key.split('.').try_fold(root, |value, name| match &value.kind {
        ValueKind::Table(fields) => fields.get(name),
        _ => None,
    })
}

fn replace(tree: &mut Json, key: &str, value: Json) {
    let place = key.split('.').try_fold(tree, |node, name| node.get_mut(name));
    if let Some(place) = place {
        *place = value;
    }
}

/// The keys there are, each with its default value.
struct Schema {
    tree: Json,
    leaves: serde_json::Map<String, Json>,
}

impl Schema {
    fn new() -> Self {
        let whole = RunConfig { synth: Some(SynthConfig::default()), ..RunConfig::default() };
        let tree = tree_of(&whole);
        let mut leaves = serde_json::Map::new();
        flatten(String::new(), &tree, &mut |key, value| {
            leaves.insert(key, value.clone());
        });
        Self { tree, leaves }
    }

    fn check(&self, layer: &Layer) -> Result<(), ConfigError> {
        for entry in &layer.0 {
            let (key, origin) = (entry.key.clone(), entry.origin.clone());
            if self.is_section(&key) {
                if entry.value.as_object().is_some_and(serde_json::Map::is_empty) {
                    continue;
                }
                return Err(ConfigError::NotASection { key, value: toml_text(&entry.value), origin });
            }
            if !self.leaves.contains_key(&key) {
                let parent = self.leaf_above(&key);
                return Err(match parent {
                    Some(parent) => ConfigError::NotATable { key: parent, origin },
                    None => ConfigError::UnknownKey {
                        nearest: self.nearest(&key),
                        section: self.keys_beside(&key),
                        key,
                        origin,
                    },
                });
            }
            let mut tree = self.tree.clone();
            replace(&mut tree, &key, entry.value.clone());
            if let Err(error) = serde_json::from_value::<RunConfig>(tree) {
                return Err(ConfigError::BadValue {
                    key,
                    value: toml_text(&entry.value),
                    origin,
                    expected: expectation(&error.to_string()),
                });
            }
        }
        Ok(())
    }

    fn is_text(&self, key: &str) -> bool {
        self.leaves.get(key).is_some_and(Json::is_string)
    }

    fn is_section(&self, key: &str) -> bool {
        self.leaves.keys().any(|leaf| leaf.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')))
    }

    /// The setting that `key` treats as a section.
    fn leaf_above(&self, key: &str) -> Option<String> {
        self.leaves
            .keys()
            .find(|leaf| key.strip_prefix(leaf.as_str()).is_some_and(|rest| rest.starts_with('.')))
            .cloned()
    }

    /// The key that was probably meant: the same name in another section, or the fewest edits away.
    fn nearest(&self, key: &str) -> Option<String> {
        let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
        let name = last(key);
        let same_name: Vec<&String> = self.leaves.keys().filter(|leaf| last(leaf) == name).collect();
        if let [only] = same_name[..] {
            return Some(only.clone());
        }
        self.leaves
            .keys()
            .map(|leaf| (strsim::damerau_levenshtein(leaf, key), leaf))
            .min_by_key(|(distance, _)| *distance)
            .filter(|(distance, _)| *distance <= (name.len() / 3).max(2))
            .map(|(_, leaf)| leaf.clone())
    }

    /// Names of the settings beside `key`, or of the sections where its section does not exist.
    fn keys_beside(&self, key: &str) -> Vec<String> {
        let section = key.rsplit_once('.').map_or("", |(section, _)| section);
        let node = if section.is_empty() {
            Some(&self.tree)
        } else {
            section.split('.').try_fold(&self.tree, |node, name| node.get(name))
        };
        let fields = node.and_then(Json::as_object).or_else(|| self.tree.as_object());
        fields.map(|fields| fields.keys().cloned().collect()).unwrap_or_default()
    }
}

/// What serde expected, in a user's words.
fn expectation(message: &str) -> String {
    let words = message.split(" at line").next().unwrap_or(message);
    let Some((_, expected)) = words.split_once("expected ") else {
        return words.split_once(" is not ").map_or(words, |(_, what)| what).to_owned();
    };
    match expected.trim() {
        "f32" | "f64" => "a number".to_owned(),
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, 0 or more".to_owned(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".to_owned(),
        "a boolean" => "`true` or `false`".to_owned(),
        "a string" => "a text".to_owned(),
        "a sequence" => "a list in brackets".to_owned(),
        other => other
            .strip_prefix("an array of length ")
            .map_or_else(|| other.to_owned(), |length| format!("a list of {length} values")),
    }
}

impl ConfigError {
    /// A broken rule, with the places where the settings it names were made.
    fn broken(rule: super::BrokenRule, sources: &BTreeMap<String, String>) -> Self {
        let places: Vec<String> = rule
            .keys()
            .iter()
            .filter_map(|key| {
                let source = sources.get(*key).filter(|source| *source != DEFAULT)?;
                Some(format!("`{key}` from {source}"))
            })
            .collect();
        let places = if places.is_empty() { String::new() } else { format!(" ({})", places.join(", ")) };
        let hint = rule.hint();
        Self::Broken { rule: Box::new(rule), places, hint }
    }
}
