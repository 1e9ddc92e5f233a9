//! How deeply a policy file is nested, before Cedar reads it.
//!
//! Cedar's reader and its evaluator recurse: what is nested too deeply ends the process when it is read,
//! or makes every decision an error when it is asked. So depth is bounded here, by a scan that does not
//! recurse. The scan counts no less than the depth of what Cedar builds, and is no parser: what is
//! wrong besides depth is left for Cedar to say.

/// Deeper than a policy that a person wrote. Deciding recurses too: one level takes 57 KB of stack in a
/// debug build, and a thread has 2 MiB.
pub(super) const LEVELS_MAX: usize = 32;

/// Finds the first byte at which the text is nested deeper than [`LEVELS_MAX`].
pub(super) fn too_deep(text: &str) -> Option<usize> {
    let mut scan = Scan { outer: Vec::new(), here: Level::default(), after_dot: false };
    for (at, token) in (Tokens { text, at: 0 }) {
        scan.take(token);
        if scan.here.depth().max(scan.outer.len()) > LEVELS_MAX {
            return Some(at);
        }
    }
    None
}

/// What the scan tells apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Token<'a> {
    Word(&'a str),
    Text,
    Open,
    Close,
    Dot,
    /// An operator that can be chained: each link is a level.
    Link,
    /// An operator that cannot, or a colon.
    Break,
    /// A comma: the next expression stands beside this one.
    Comma,
    Semicolon,
}

/// The expressions between a pair of brackets, as deep as they were so far.
#[derive(Debug, Default)]
struct Level {
    /// The deepest of the expressions before the last comma.
    before: usize,
    /// The deepest of the operands before the last operator.
    operands: usize,
    /// The operand being read: accesses, calls, and what is in its brackets.
    operand: usize,
    /// The operators of this expression.
    links: usize,
}

impl Level {
    fn depth(&self) -> usize {
        self.before.max(self.operands.max(self.operand) + self.links)
    }

    fn end_operand(&mut self) {
        self.operands = self.operands.max(self.operand);
        self.operand = 0;
    }

    fn end_expression(&mut self) {
        *self = Self { before: self.depth(), ..Self::default() };
    }
}

#[derive(Debug)]
struct Scan {
    outer: Vec<Level>,
    here: Level,
    after_dot: bool,
}

impl Scan {
    fn take(&mut self, token: Token<'_>) {
        match token {
            Token::Word(word) => self.word(word),
            Token::Text => {}
            Token::Dot => self.here.operand += 1,
            Token::Open => self.outer.push(std::mem::take(&mut self.here)),
            Token::Close => self.close(),
            Token::Link => {
                self.here.end_operand();
                self.here.links += 1;
            }
            Token::Break => self.here.end_operand(),
            Token::Comma => self.here.end_expression(),
            // A policy ends, but only where no bracket is open.
            Token::Semicolon if self.outer.is_empty() => self.here = Level::default(),
            Token::Semicolon => self.here.end_expression(),
        }
        self.after_dot = token == Token::Dot;
    }

    fn word(&mut self, word: &str) {
        if self.after_dot {
            return;
        }
        self.here.end_operand();
        // Cedar joins the conditions of a policy to one expression.
        if matches!(word, "if" | "when" | "unless") {
            self.here.links += 1;
        }
    }

    fn close(&mut self) {
        let Some(outer) = self.outer.pop() else { return };
        let inner = std::mem::replace(&mut self.here, outer);
        self.here.operand = self.here.operand.max(inner.depth()) + 1;
    }
}

/// The tokens of Cedar as far as they matter here.
struct Tokens<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Iterator for Tokens<'a> {
    type Item = (usize, Token<'a>);

    fn next(&mut self) -> Option<(usize, Token<'a>)> {
        loop {
            let rest = self.text.get(self.at..)?;
            let at = self.at;
            let first = rest.chars().next()?;
            let (length, token) = match first {
                '/' if rest.starts_with("//") => (rest.find(['\n', '\r']).unwrap_or(rest.len()), None),
                '"' => (text_length(rest), Some(Token::Text)),
                '(' | '[' | '{' => (1, Some(Token::Open)),
                ')' | ']' | '}' => (1, Some(Token::Close)),
                '.' => (1, Some(Token::Dot)),
                ',' => (1, Some(Token::Comma)),
                ';' => (1, Some(Token::Semicolon)),
                _ if ["!=", "==", "<=", ">=", "::"].iter().any(|pair| rest.starts_with(pair)) => {
                    (2, Some(Token::Break))
                }
                _ if rest.starts_with("&&") || rest.starts_with("||") => (2, Some(Token::Link)),
                '!' | '-' | '+' | '*' | '/' | '%' => (1, Some(Token::Link)),
                '<' | '>' | '=' | ':' => (1, Some(Token::Break)),
                _ if is_word(first) => {
                    let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                    (length, rest.get(..length).map(Token::Word))
                }
                other => (other.len_utf8(), None),
            };
            self.at += length;
            if let Some(token) = token {
                return Some((at, token));
            }
        }
    }
}

const fn is_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

/// The length of a quoted text with its quotes; one that nobody ends goes on to the end.
fn text_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(condition: &str) -> String {
        format!("permit (principal, action, resource) when {{ {condition} }};")
    }

    fn deep(condition: &str) -> bool {
        too_deep(&policy(condition)).is_some()
    }

    /// Every way to nest, a given number of times.
    fn ways(times: usize) -> Vec<String> {
        let around = |open: &str, close: &str| open.repeat(times) + "true" + &close.repeat(times);
        let link = |link: &str| "a".to_owned() + &link.repeat(times);
        vec![
            around("(", ")"),
            around("[", "]"),
            around("{ a: ", "}"),
            around("if ", " then a else b"),
            around("if a then ", " else b"),
            around("if a then b else ", ""),
            around("!", ""),
            around("- ", ""),
            around("a.f(", ")"),
            link(".a"),
            link("[\"a\"]"),
            link(".f(b, c)"),
            link(" && b"),
            link(" || b"),
            link(" + b"),
            link(" * b"),
            link("/* b"),
        ]
    }

    #[test]
    fn every_way_to_nest_is_bounded() {
        for (shallow, deeper) in ways(LEVELS_MAX / 3).iter().zip(ways(LEVELS_MAX + 1)) {
            assert!(!deep(shallow), "{shallow}");
            assert!(deep(&deeper), "{deeper}");
        }
        assert!(
            too_deep(&format!(
                "permit (principal, action, resource){};",
                " when { a }".repeat(LEVELS_MAX + 1)
            ))
            .is_some()
        );
    }

    #[test]
    fn ways_to_nest_add_up() {
        let half = LEVELS_MAX / 2 + 1;
        let dots = ".a".repeat(half);
        for text in [
            format!("{}a{}{}", "(".repeat(half), ")".repeat(half), dots),
            format!("{}a{dots}{}", "(".repeat(half), ")".repeat(half)),
            format!("a{dots}{}", " && b".repeat(half)),
            format!("{}a{dots}", "b || ".repeat(half)),
            format!("{}a{dots}", "if b then c else ".repeat(half)),
        ] {
            assert!(deep(&text), "{text}");
        }
    }

    #[test]
    fn what_stands_side_by_side_is_not_deep() {
        let one = policy("a.b.c == 1 && [d.e, f.g].contains(h.i) || !j");
        assert_eq!(too_deep(&one.repeat(1_000)), None);
        assert!(!deep(&format!("[{}]", "a.b + c.d, ".repeat(1_000))));
        assert!(!deep(&vec!["a.b.c.d.e.f.g == h.i"; 20].join(" && ")));
    }

    #[test]
    fn brackets_in_texts_and_comments_do_not_count() {
        let many = "([{".repeat(100);
        assert!(!deep(&format!("a == \"{many}\" && b == \"\\\"{many}\\\\\" // {many}\n")));
        assert!(!deep(&format!("a // \"\r && b == \"{many}\"\n")));
    }

    #[test]
    fn what_follows_a_text_or_a_comment_counts() {
        let many = "(".repeat(100);
        for before in ["\"\\\\\"", "\"\\\"\"", "// \"\n", "// \"\r", "// \n"] {
            assert!(deep(&format!("{before}{many}")), "{before}");
        }
    }

    #[test]
    fn the_place_is_where_it_becomes_too_deep() {
        assert_eq!(too_deep(&"(".repeat(100)), Some(LEVELS_MAX));
        assert_eq!(too_deep(&format!("é{}", "[".repeat(100))), Some(LEVELS_MAX + 2));
    }

    #[test]
    fn nonsense_is_left_for_cedar() {
        for text in ["", ")", "]]]}", "\"", "\\", "é", "//", ";;", "(;)", "..", "?principal", "\0"] {
            assert_eq!(too_deep(text), None, "{text}");
        }
    }
}
