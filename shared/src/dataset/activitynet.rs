//! Annotations as one JSON file with a `database` (spec 70, section 2), and the variants that others made of it.

use std::collections::BTreeMap;
use std::path::Path;

use super::finding::Finding;
use super::{DatasetError, OddEntry, Raw, RawAction, RawLabel, RawVideo};
use crate::json::{self, Kind, Odd, Place, Value};
use crate::text::{self, composed};

/// Reads every video of the file, in the file's order; a repeated id is an error among the findings.
pub(super) fn read(path: &Path) -> Result<Raw, DatasetError> {
    let text = text::read(path)?;
    let not_json = |message: String| DatasetError::NotJson { path: path.to_owned(), message };
    let file = json::parse(&text).map_err(|error| not_json(error.to_string()))?;
    let at_place = |odd: Odd| not_json(format!("{}: {}", Place::of(&text, odd.at), odd.message));
    let database = file.needed(&["database"]).map_err(at_place)?;
    let mut raw = Raw::default();
    let mut seen = BTreeMap::new();
    for (id, entry) in database.members("`database`").map_err(at_place)? {
        if let Some(earlier) = seen.insert(composed(id), entry.at) {
            let [first, second] = [earlier, entry.at].map(|at| Place::of(&text, at));
            let (annotations, video) = (path.to_owned(), id.clone().into_owned());
            raw.findings.push(Finding::RepeatedId { annotations, video, first, second });
        }
        let bad = |odd: Odd| (Place::of(&text, odd.at), odd.message);
        // An entry whose subset cannot be read may belong to any.
        let subset = subset(entry).map_err(|odd| {
            let (place, message) = bad(odd);
            DatasetError::BadEntry { path: path.to_owned(), video: id.clone().into_owned(), place, message }
        })?;
        match actions(entry, &mut raw.numbers) {
            Ok((duration, actions)) => {
                raw.videos.push(RawVideo { id: id.clone().into_owned(), subset, duration, actions });
            }
            Err(odd) => {
                let (place, message) = bad(odd);
                let (id, path) = (id.clone().into_owned(), path.to_owned());
                raw.odd.push(OddEntry { id, subset, path, place, message });
            }
        }
    }
    Ok(raw)
}

fn subset(entry: &Value<'_>) -> Result<String, Odd> {
    match entry.field(&["subset"])? {
        None => Ok(String::new()),
        Some(Value { kind: Kind::Text(name), .. }) => Ok(name.clone().into_owned()),
        Some(other) => Err(other.odd(format!("`subset` is {}, not a text", other.shown()))),
    }
}

/// The duration, if it is told, and what happens.
fn actions(
    entry: &Value<'_>,
    numbers: &mut BTreeMap<String, u32>,
) -> Result<(Option<f64>, Vec<RawAction>), Odd> {
    let duration = entry.field(&["duration"])?.map(|value| value.number("duration")).transpose()?;
    let annotations = match entry.field(&["annotations"])? {
        Some(list) => list.list("`annotations`")?,
        None => &[],
    };
    let mut actions = Vec::with_capacity(annotations.len());
    for annotation in annotations {
        actions.push(action(annotation)?);
        if let (Some(RawAction { label: RawLabel::Name(name), .. }), Some(number)) =
            (actions.last(), annotation.field(&["label_id"])?.and_then(whole))
        {
            numbers.insert(name.clone(), number);
        }
    }
    Ok((duration, actions))
}

fn action(annotation: &Value<'_>) -> Result<RawAction, Odd> {
    let [start, end] = annotation.needed(&["segment"])?.pair("segment")?;
    let label = annotation.needed(&["label"])?;
    let label = match &label.kind {
        Kind::Number(_) => RawLabel::Id(whole(label).map(|number| number as usize).ok_or_else(|| {
            label.odd(format!("`label` is {}, neither a name nor a class number", label.shown()))
        })?),
        _ => RawLabel::Name(label.name("label")?.to_owned()),
    };
    Ok(RawAction { label, start, end })
}

/// A number without sign and fraction; `label_id` is left out where it is none.
fn whole(value: &Value<'_>) -> Option<u32> {
    let Kind::Number(number) = value.kind else { return None };
    ((0.0..=f64::from(u32::MAX)).contains(&number) && number.fract() == 0.0).then_some(number as u32)
}
