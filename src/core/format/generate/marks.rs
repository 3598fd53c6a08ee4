//! Marks at the ends of an answer: texts like `</s>` that a server sends along with what the model said.

/// Takes marks off both ends of a text that comes in pieces. Only what may still turn out to be a mark is held back, so the
/// result does not depend on where the pieces end.
#[derive(Debug)]
pub(super) struct Marks {
    marks: Vec<String>,
    /// How far back from the end marks are looked for, in bytes. Bounds what is held, and the work per piece.
    window: usize,
    /// The end of the text so far, as far as it may belong to marks.
    held: String,
    begun: bool,
}

impl Marks {
    pub fn new(marks: &[String]) -> Marks {
        let marks: Vec<String> = marks.iter().filter(|mark| !mark.is_empty()).cloned().collect();
        let longest = marks.iter().map(String::len).max().unwrap_or(0);
        Marks { marks, window: longest + 256, held: String::new(), begun: false }
    }

    /// Adds a piece and returns what of the text is sure by now.
    pub fn push(&mut self, piece: &str) -> String {
        self.held.push_str(piece);
        let far = self.held.len().saturating_sub(self.window);
        let starts = self.held.char_indices().map(|(at, _)| at).filter(|at| *at >= far);
        let at = starts.into_iter().find(|at| self.may_be_marks(*at)).unwrap_or(self.held.len());
        let rest = self.held.split_off(at);
        let sure = std::mem::replace(&mut self.held, rest);
        self.without_opening(sure)
    }

    /// What remains at the end of the text. Whole marks are left out, unless the text was cut off by its length limit and so
    /// has no end of its own.
    pub fn finish(&mut self, cut_off: bool) -> String {
        let held = std::mem::take(&mut self.held);
        let sure = if cut_off { held } else { self.without_ending(held) };
        self.without_opening(sure)
    }

    /// Whether the held text from `at` on is marks up to its end, the last perhaps incomplete.
    fn may_be_marks(&self, at: usize) -> bool {
        let mut rest = self.held.get(at..).unwrap_or_default();
        while let Some(after) = self.marks.iter().find_map(|mark| rest.strip_prefix(mark.as_str())) {
            rest = after;
        }
        self.marks.iter().any(|mark| mark.starts_with(rest))
    }

    fn without_opening(&mut self, sure: String) -> String {
        if self.begun {
            return sure;
        }
        let mut text = sure.as_str();
        while let Some(after) = self.marks.iter().find_map(|mark| text.strip_prefix(mark.as_str())) {
            text = after;
        }
        self.begun = !text.is_empty();
        text.to_owned()
    }

    fn without_ending(&self, mut held: String) -> String {
        while let Some(mark) = self.marks.iter().find(|mark| held.ends_with(mark.as_str())) {
            held.truncate(held.len() - mark.len());
        }
        held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(marks: &[String], pieces: &[&str], cut_off: bool) -> String {
        let mut marks = Marks::new(marks);
        let mut text: String = pieces.iter().map(|piece| marks.push(piece)).collect();
        text.push_str(&marks.finish(cut_off));
        text
    }

    #[test]
    fn marks_go_from_the_ends_only_however_the_text_is_split() {
        let marks = ["</s>".to_owned(), "<s>".to_owned(), "END".to_owned(), "ü!".to_owned()];
        for (text, cut_off, wanted) in [
            ("Hello", false, "Hello"),
            ("<s>Hello</s>", false, "Hello"),
            ("<s><s>Hi END</s>", false, "Hi "),
            ("a </s> b", false, "a </s> b"),
            ("a < b </", false, "a < b </"),
            ("done END", true, "done END"),
            ("über ü!", false, "über "),
            ("<s></s>", false, ""),
            ("", false, ""),
        ] {
            assert_eq!(all(&marks, &[text], cut_off), wanted, "{text}");
            for at in (0..=text.len()).filter(|at| text.is_char_boundary(*at)) {
                let (one, two) = text.split_at(at);
                assert_eq!(all(&marks, &[one, two], cut_off), wanted, "{one}|{two}");
            }
            let letters: Vec<String> = text.chars().map(String::from).collect();
            let letters: Vec<&str> = letters.iter().map(String::as_str).collect();
            assert_eq!(all(&marks, &letters, cut_off), wanted, "{text} by letters");
        }
    }

    #[test]
    fn what_is_held_is_bounded() {
        let mut marks = Marks::new(&["a".to_owned()]);
        for _ in 0..1000 {
            marks.push("a");
        }
        assert!(marks.held.len() <= marks.window);
    }

    #[test]
    fn only_what_may_be_a_mark_is_held_back() {
        let mut marks = Marks::new(&["</s>".to_owned()]);
        assert_eq!(marks.push("x <"), "x ");
        assert_eq!(marks.push(" y"), "< y");
        assert_eq!(marks.push("</s>"), "");
        assert_eq!(marks.push("z"), "</s>z");
        assert_eq!(marks.finish(false), "");
    }
}
