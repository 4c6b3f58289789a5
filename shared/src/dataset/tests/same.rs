//! One video under two ids, in one subset or in both.

use std::os::unix::fs::symlink;

use super::*;

/// Bytes that no other file of a test has, longer than what is compared first.
fn pictures(name: &str) -> Vec<u8> {
    name.bytes().cycle().take(200 * 1024).collect()
}

/// Annotations of `tr1`, `tr2` and `va1` and their files, and another id in the subset that is named.
fn with_another(id: &str, subset: &str) -> Folder {
    let entry = |id: &str, subset: &str| {
        format!(
            r#""{id}": {{"subset": "{subset}", "duration": 9, "annotations": [{{"label": "run", "segment": [1, 2]}}]}}"#
        )
    };
    let entries =
        [entry("tr1", "training"), entry("tr2", "training"), entry("va1", "validation"), entry(id, subset)];
    let folder = Folder::new().with("anno.json", &format!("{{\"database\": {{{}}}}}", entries.join(",")));
    for name in ["tr1", "tr2", "va1"] {
        put(&folder, &format!("{name}.mp4"), &pictures(name));
    }
    folder
}

fn put(folder: &Folder, name: &str, bytes: &[u8]) {
    fs::write(folder.0.path().join("videos").join(name), bytes).unwrap();
}

fn findings(folder: &Folder) -> Vec<String> {
    match load(&folder.config("anno.json")) {
        Ok(_) => Vec::new(),
        Err(DatasetError::Refused { findings }) => findings.iter().map(ToString::to_string).collect(),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn two_ids_for_one_file_are_a_leak_across_subsets_and_an_error_within() {
    let leak = findings(&with_another("v_tr1", "validation"));
    assert_eq!(leak, ["`tr1` in training and `v_tr1` in validation are one file"]);
    assert_eq!(findings(&with_another("sub/tr1.mp4", "validation")).len(), 1);
    let within = findings(&with_another("v_tr1", "training"));
    assert!(within[0].starts_with("`tr1` and `v_tr1` are one file, `"), "{within:?}");
}

#[test]
fn links_and_copies_of_a_trained_video_are_leaks() {
    let folder = with_another("link", "validation");
    let videos = folder.0.path().join("videos");
    symlink("tr1.mp4", videos.join("link.mp4")).unwrap();
    assert_eq!(findings(&folder), ["`tr1` in training and `link` in validation are one file"]);

    fs::remove_file(videos.join("link.mp4")).unwrap();
    fs::hard_link(videos.join("tr2.mp4"), videos.join("link.mp4")).unwrap();
    assert_eq!(findings(&folder), ["`tr2` in training and `link` in validation are one file"]);

    fs::remove_file(videos.join("link.mp4")).unwrap();
    put(&folder, "link.mp4", &pictures("tr2"));
    let report =
        check(&folder.config("anno.json"), &|videos| vec![Ok(probed(90, 9.0)); videos.len()]).unwrap();
    let problems: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    assert_eq!(problems, ["the files of `tr2` in training and `link` in validation have the same content"]);
    assert_eq!(findings(&folder), problems);
}

#[test]
fn files_of_one_size_that_differ_in_the_middle_are_two_videos() {
    let folder = with_another("other", "validation");
    let mut bytes = pictures("tr1");
    bytes[100 * 1024] ^= 1;
    put(&folder, "other.mp4", &bytes);
    assert!(findings(&folder).is_empty());
}

#[test]
fn copies_within_a_subset_are_no_leak() {
    let folder = with_another("copy", "training");
    put(&folder, "copy.mp4", &pictures("tr1"));
    assert!(findings(&folder).is_empty());
}

#[test]
fn validating_on_the_training_subset_is_allowed_and_told() {
    let folder = with_another("more", "training");
    put(&folder, "more.mp4", &pictures("more"));
    let config = DataConfig { validation_subset: "training".into(), ..folder.config("anno.json") };
    let dataset = load(&config).unwrap();
    assert_eq!(dataset.videos.len(), 6);
    let said = remarks(&dataset);
    assert!(
        said.iter().any(|remark| remark.starts_with("training and validation are the same subset")),
        "{said:?}"
    );
}

#[test]
fn a_thumos14_video_in_both_subsets_is_a_leak() {
    let folder = thumos();
    folder.write("text/test/Diving_test.txt", "video_validation_0000001 1 2\n");
    let text = complaint(&thumos_config(&folder, "text"));
    assert!(text.starts_with("video `video_validation_0000001` is in training and in validation"), "{text}");
}
