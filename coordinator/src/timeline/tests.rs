use super::*;

fn segment(label: &str, start: f64, end: f64) -> Segment {
    Segment { label: label.into(), start: Seconds(start), end: Seconds(end) }
}

fn found(label: &str, start: f64, end: f64, score: f64) -> Detection {
    Detection { segment: segment(label, start, end), score }
}

fn panel(truth: Option<Vec<Segment>>, detections: Vec<Detection>) -> Panel {
    Panel { video: "pool_003".into(), duration: Seconds(42.0), truth, detections }
}

fn picture(panels: Vec<Panel>) -> Picture {
    Picture { title: "Detections".into(), threshold: 0.3, panels }
}

#[test]
fn a_picture_with_ground_truth() {
    let svg = draw(&picture(vec![panel(
        Some(vec![segment("dive", 4.0, 9.5), segment("swim", 12.0, 30.0)]),
        vec![
            found("dive", 4.2, 9.1, 0.93),
            found("dive", 3.0, 8.0, 0.41),
            found("swim", 12.5, 29.0, 0.77),
            found("wave", 33.0, 36.0, 0.31),
            found("wave", 1.0, 2.0, 0.12),
        ],
    )]));
    insta::assert_snapshot!(svg);
}

#[test]
fn only_what_reaches_the_threshold_is_drawn() {
    let svg = draw(&picture(vec![panel(None, vec![found("dive", 1.0, 2.0, 0.29), found("dive", 3.0, 4.0, 0.3)])]));
    assert!(!svg.contains("score 0.29") && svg.contains("dive from 3.0 s to 4.0 s, score 0.30"), "{svg}");
    assert!(!svg.contains(">annotated<"), "no legend for ground truth that is not there");
}

#[test]
fn a_video_in_which_nothing_is_found_says_so() {
    let none = draw(&picture(vec![panel(None, vec![])]));
    assert!(none.contains("no detections"), "{none}");
    let weak = draw(&picture(vec![panel(None, vec![found("dive", 1.0, 2.0, 0.21)])]));
    assert!(weak.contains("no detection reaches 0.30, the best has 0.21"), "{weak}");
}

#[test]
fn what_is_hidden_is_counted() {
    let crowd = (0..5).map(|index| found("dive", 1.0, 5.0, 0.9 - 0.1 * f64::from(index))).collect();
    let svg = draw(&picture(vec![panel(None, crowd)]));
    assert!(svg.contains("3 detections  ·  2 more behind better ones"), "{svg}");
}

#[test]
fn names_from_files_cannot_break_the_picture() {
    let mut hostile = panel(Some(vec![segment("<b>&\"\u{7}", 1.0, 2.0)]), vec![]);
    hostile.video = "</text><script>".into();
    let svg = draw(&picture(vec![hostile]));
    assert!(svg.contains("&lt;b&gt;&amp;&quot;") && !svg.contains("<script>") && !svg.contains('\u{7}'), "{svg}");
}
