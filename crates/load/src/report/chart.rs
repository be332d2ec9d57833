//! A drawing of curves as SVG that stands inside a page and takes its colours from there.

use super::axis::Axis;

/// Width and height of a drawing in its own units, which are pixels where it is shown at that width.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    width: f64,
    height: f64,
}

/// As wide as the page.
pub(super) const WIDE: Size = Size { width: 720.0, height: 340.0 };
/// Two beside each other.
pub(super) const HALF: Size = Size { width: 380.0, height: 200.0 };

/// The room around the curves for names and marks.
const LEFT: f64 = 62.0;
const RIGHT: f64 = 18.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 50.0;

/// Curves over two axes.
pub(super) struct Chart {
    pub(super) size: Size,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) curves: Vec<Curve>,
    pub(super) limits: Vec<Limit>,
    /// What the drawing shows, for those who do not see it.
    pub(super) description: String,
}

/// One curve.
pub(super) struct Curve {
    pub(super) name: String,
    /// A colour of CSS.
    pub(super) colour: String,
    pub(super) points: Vec<Point>,
    pub(super) drawn: Drawn,
}

/// A place on a curve.
pub(super) struct Point {
    pub(super) x: f64,
    pub(super) y: f64,
    /// Shown by the browser where the pointer rests on it.
    pub(super) hint: String,
}

/// How a curve is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Drawn {
    /// A line with a dot at each point.
    Dotted,
    Line,
    /// A dashed line, for what is not measured but compared with.
    Dashed,
}

/// A level to compare with.
pub(super) struct Limit {
    pub(super) y: f64,
    pub(super) name: String,
}

impl Chart {
    /// Writes legend and drawing.
    pub(super) fn html(&self) -> String {
        let mut html = String::new();
        if self.curves.len() > 1 {
            html += "<div class=\"legend\">";
            for curve in &self.curves {
                let dash = if curve.drawn == Drawn::Dashed { " dashed" } else { "" };
                html += &format!(
                    "<span><i class=\"swatch{dash}\" style=\"border-color:{}\"></i>{}</span>",
                    curve.colour,
                    escaped(&curve.name)
                );
            }
            html += "</div>\n";
        }
        html += &format!(
            "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">\n",
            self.size.width,
            self.size.height,
            escaped(&self.description)
        );
        self.draw_axes(&mut html);
        for limit in &self.limits {
            let y = self.down(self.y.place(limit.y));
            html += &format!(
                "<line class=\"limit\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text class=\"limit-name\" x=\"{:.1}\" y=\"{:.1}\">{}</text>\n",
                self.size.width - RIGHT,
                LEFT + 6.0,
                if y < TOP + 18.0 { y + 14.0 } else { y - 5.0 },
                escaped(&limit.name)
            );
        }
        for curve in &self.curves {
            self.draw(curve, &mut html);
        }
        html += "</svg>\n";
        html
    }

    fn draw_axes(&self, html: &mut String) {
        let (right, bottom) = (self.size.width - RIGHT, self.size.height - BOTTOM);
        for (place, label) in self.y.marks() {
            let y = self.down(place);
            *html += &format!(
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text class=\"mark\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>\n",
                LEFT - 8.0,
                y + 4.0
            );
        }
        for (place, label) in self.x.marks() {
            let x = self.across(place);
            *html += &format!(
                "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>\
                 <text class=\"mark\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>\n",
                bottom + 18.0
            );
        }
        *html += &format!(
            "<path class=\"frame\" d=\"M{LEFT} {TOP}V{bottom}H{right}\"/>\
             <text class=\"name\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
             <text class=\"name\" transform=\"translate(15 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>\n",
            f64::midpoint(LEFT, right),
            self.size.height - 10.0,
            escaped(self.x.name),
            f64::midpoint(TOP, bottom),
            escaped(self.y.name)
        );
    }

    fn draw(&self, curve: &Curve, html: &mut String) {
        let places: Vec<(f64, f64)> = curve
            .points
            .iter()
            .map(|point| (self.across(self.x.place(point.x)), self.down(self.y.place(point.y))))
            .collect();
        let line: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let dash = if curve.drawn == Drawn::Dashed { " dashed" } else { "" };
        *html += &format!(
            "<polyline class=\"curve{dash}\" style=\"stroke:{}\" points=\"{}\"><title>{}</title></polyline>\n",
            curve.colour,
            line.join(" "),
            escaped(&curve.name)
        );
        if curve.drawn == Drawn::Dotted {
            for ((x, y), point) in places.iter().zip(&curve.points) {
                *html += &format!(
                    "<circle class=\"dot\" style=\"fill:{}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\">\
                     <title>{}</title></circle>\n",
                    curve.colour,
                    escaped(&point.hint)
                );
            }
        }
    }

    fn across(&self, place: f64) -> f64 {
        LEFT + place * (self.size.width - LEFT - RIGHT)
    }

    fn down(&self, place: f64) -> f64 {
        self.size.height - BOTTOM - place * (self.size.height - TOP - BOTTOM)
    }
}

/// Text as it may stand in a page, inside an attribute too.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(curve: Curve) -> Chart {
        Chart {
            size: WIDE,
            x: Axis::linear("x", [1.0].into_iter()),
            y: Axis::linear("y", [1.0].into_iter()),
            curves: vec![curve],
            limits: Vec::new(),
            description: "\"><script>".to_owned(),
        }
    }

    fn curve(x: f64, y: f64) -> Curve {
        let points = vec![Point { x, y, hint: "a & \"b\"".to_owned() }];
        Curve { name: "<script>".to_owned(), colour: "red".to_owned(), points, drawn: Drawn::Dotted }
    }

    #[test]
    fn what_a_server_or_user_named_cannot_leave_its_place() {
        let html = chart(curve(1.0, 1.0)).html();
        assert!(!html.contains("<script") && html.contains("&lt;script&gt;"), "{html}");
        assert!(html.contains("<title>a &amp; &quot;b&quot;</title>"), "{html}");
    }

    #[test]
    fn points_stand_where_the_axes_say() {
        for (x, y, place) in [
            (0.0, 0.0, "cx=\"62.0\" cy=\"290.0\""),
            (1.0, 1.0, "cx=\"702.0\" cy=\"16.0\""),
            (0.5, 0.25, "cx=\"382.0\" cy=\"221.5\""),
        ] {
            let html = chart(curve(x, y)).html();
            assert!(html.contains(place), "{html}");
        }
    }
}
