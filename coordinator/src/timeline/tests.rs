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
    let svg =
        draw(&picture(vec![panel(None, vec![found("dive", 1.0, 2.0, 0.29), found("dive", 3.0, 4.0, 0.3)])]));
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
    assert!(
        svg.contains("&lt;b&gt;&amp;&quot;") && !svg.contains("<script>") && !svg.contains('\u{7}'),
        "{svg}"
    );
}

#[test]
fn two_videos_share_colours_but_not_axes() {
    let first = Panel {
        video: "validation_004".into(),
        duration: Seconds(38.4),
        truth: Some(vec![
            segment("circle", 2.1, 7.4),
            segment("zigzag", 9.8, 14.2),
            segment("circle", 17.0, 23.6),
            segment("bounce", 26.3, 33.9),
        ]),
        detections: vec![
            found("circle", 2.3, 7.2, 0.91),
            found("circle", 1.0, 5.1, 0.42),
            found("circle", 16.6, 23.1, 0.84),
            found("circle", 19.9, 24.4, 0.47),
            found("zigzag", 9.5, 14.6, 0.78),
            found("zigzag", 27.2, 29.5, 0.33),
            found("bounce", 26.0, 34.3, 0.88),
            found("bounce", 25.2, 29.4, 0.52),
            found("bounce", 30.3, 35.2, 0.45),
            found("bounce", 11.0, 12.0, 0.11),
        ],
    };
    let second = Panel {
        video: "validation_007".into(),
        duration: Seconds(95.0),
        truth: Some(vec![
            segment("pendulum", 4.0, 22.5),
            segment("circle", 31.0, 44.0),
            segment("pendulum", 52.5, 61.0),
            segment("zigzag", 70.0, 88.0),
        ]),
        detections: vec![
            found("pendulum", 4.4, 21.8, 0.95),
            found("pendulum", 53.8, 62.3, 0.66),
            found("circle", 33.5, 43.2, 0.58),
            found("zigzag", 69.1, 87.2, 0.81),
            found("zigzag", 66.0, 76.0, 0.39),
            found("circle", 72.0, 75.5, 0.31),
        ],
    };
    let svg = draw(&Picture {
        title: "Detections on the validation videos".into(),
        threshold: 0.3,
        panels: vec![first, second],
    });
    insta::assert_snapshot!(svg);
}
