//! A few SVG elements, as text.

const FONT: &str = "Inter, 'Helvetica Neue', Helvetica, Arial, 'DejaVu Sans', sans-serif";

/// A picture that grows by elements.
pub(super) struct Canvas {
    elements: Vec<String>,
}

/// How an area looks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint {
    pub(super) fill: &'static str,
    pub(super) opacity: f64,
    pub(super) radius: f64,
}

impl Paint {
    /// Without anything shining through.
    pub(super) fn solid(fill: &'static str) -> Self {
        Self { fill, opacity: 1.0, radius: 2.5 }
    }
}

/// A piece of text and how it looks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text<'a> {
    text: &'a str,
    size: f64,
    fill: &'static str,
    anchor: &'static str,
    weight: &'static str,
}

impl<'a> Text<'a> {
    /// Begins at its place.
    pub(super) fn new(text: &'a str, size: f64, fill: &'static str) -> Self {
        Self { text, size, fill, anchor: "", weight: "" }
    }

    /// Ends at its place.
    pub(super) fn right(self) -> Self {
        Self { anchor: r#" text-anchor="end""#, ..self }
    }

    /// Has its middle at its place.
    pub(super) fn centred(self) -> Self {
        Self { anchor: r#" text-anchor="middle""#, ..self }
    }

    pub(super) fn bold(self) -> Self {
        Self { weight: r#" font-weight="600""#, ..self }
    }
}

impl Canvas {
    /// A white page; `title` is what a screen reader says.
    pub(super) fn new(width: f64, height: f64, title: &str) -> Self {
        let (width, height) = (pixels(width), pixels(height));
        let elements = vec![
            format!(
                r#"<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{width}" height="{height}" viewBox="0 0 {width} {height}" font-family="{FONT}">"#
            ),
            format!("<title>{}</title>", escape(title)),
            format!(r##"<rect width="{width}" height="{height}" fill="#ffffff"/>"##),
        ];
        Self { elements }
    }

    /// `[left, top, width, height]`; `told` is shown where the pointer rests.
    pub(super) fn rect(&mut self, [x, y, width, height]: [f64; 4], paint: Paint, told: &str) {
        let [x, y, width, height] = [x, y, width, height].map(pixels);
        let radius =
            if paint.radius > 0.0 { format!(r#" rx="{}""#, pixels(paint.radius)) } else { String::new() };
        let opacity = if paint.opacity < 1.0 {
            format!(r#" fill-opacity="{:.2}""#, paint.opacity)
        } else {
            String::new()
        };
        let shape = format!(
            r#"<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="{}"{opacity}{radius}"#,
            paint.fill
        );
        self.elements.push(if told.is_empty() {
            format!("{shape}/>")
        } else {
            format!("{shape}><title>{}</title></rect>", escape(told))
        });
    }

    /// `[x1, y1, x2, y2]`; `dashes` as SVG writes them.
    pub(super) fn line(&mut self, ends: [f64; 4], stroke: &str, dashes: Option<&str>) {
        let [x1, y1, x2, y2] = ends.map(pixels);
        let dashes = dashes.map_or(String::new(), |dashes| format!(r#" stroke-dasharray="{dashes}""#));
        self.elements.push(format!(
            r#"<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{stroke}" stroke-width="1"{dashes}/>"#
        ));
    }

    /// `y` is the line the letters stand on.
    pub(super) fn text(&mut self, x: f64, y: f64, text: &Text<'_>) {
        let Text { text, size, fill, anchor, weight } = *text;
        let [x, y, size] = [x, y, size].map(pixels);
        self.elements.push(format!(
            r#"<text x="{x}" y="{y}" font-size="{size}" fill="{fill}"{anchor}{weight}>{}</text>"#,
            escape(text)
        ));
    }

    pub(super) fn finish(mut self) -> String {
        self.elements.push("</svg>\n".to_owned());
        self.elements.join("\n")
    }
}

/// A tenth of a pixel is enough.
fn pixels(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}

/// Text as XML holds it; characters that XML forbids are left out.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            letter if letter.is_control() => {}
            letter => escaped.push(letter),
        }
    }
    escaped
}
