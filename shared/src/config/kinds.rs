//! Which detector family and which backbone a run trains, and which settings belong to each.

use serde::{Deserialize, Serialize};

/// A detector family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DetectorKind {
    /// TALLFormer's detector on THUMOS14: anchors on a feature pyramid (spec 40).
    #[default]
    DaoTad,
}

impl DetectorKind {
    /// As the settings write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::DaoTad => "daotad",
        }
    }
}

/// A backbone family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackboneKind {
    /// Video Swin Transformer (spec 10).
    #[default]
    VideoSwin,
}

/// Sections that one detector family alone reads.
pub(super) const SECTIONS: [(&str, &str); 3] =
    [("model.neck.", "daotad"), ("model.head.", "daotad"), ("model.loss.", "daotad")];

/// The family that alone reads a setting, where that is another one than `selected`.
pub(super) fn other_owner<'s>(key: &str, selected: &str, sections: &[(&str, &'s str)]) -> Option<&'s str> {
    let mut owners = sections.iter().filter(|(section, _)| key.starts_with(section)).map(|(_, owner)| *owner);
    let first = owners.next()?;
    (first != selected && !owners.any(|owner| owner == selected)).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RunConfig;

    #[test]
    fn a_setting_of_another_family_names_its_owner() {
        let sections = [("model.neck.", "daotad"), ("model.neck.", "afsd"), ("model.afsd.", "afsd")];
        assert_eq!(other_owner("model.afsd.levels", "daotad", &sections), Some("afsd"));
        assert_eq!(other_owner("model.afsd.levels", "afsd", &sections), None);
        assert_eq!(other_owner("model.neck.channels", "afsd", &sections), None, "a shared section");
        assert_eq!(other_owner("model.neck.channels", "stale", &sections), Some("daotad"));
        assert_eq!(other_owner("model.kind", "stale", &sections), None);
    }

    #[test]
    fn sections_of_families_exist() {
        let keys = super::super::resolve::rows_of(&RunConfig::default());
        for (section, _) in SECTIONS {
            assert!(keys.iter().any(|(key, _)| key.starts_with(section)), "{section}");
        }
    }
}
